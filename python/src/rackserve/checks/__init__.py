"""The checks of `rackserve verify`.

Here are the plans of a host's checks, which the action plugin `host_checks` uses too, and the shared types. The checks
from the controller (`edge`) and the reader of the hosts' results (`evidence`) are imported by name: Ansible needs
neither.
"""

from __future__ import annotations

from rackserve.checks._plan import Inputs, Site, host_checks, host_facts, status_checks
from rackserve.checks._types import Check, CheckResult, EdgeTarget

__all__ = [
    "Check",
    "CheckResult",
    "EdgeTarget",
    "Inputs",
    "Site",
    "host_checks",
    "host_facts",
    "status_checks",
]
