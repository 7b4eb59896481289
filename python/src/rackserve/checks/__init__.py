"""What `rackserve verify` looks at.

Here are the plans of what hosts look at, which the action plugin `host_checks` uses too, and the common words. The
checks from the controller (`edge`) and the reading of what hosts found (`evidence`) are imported by name: Ansible needs
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
