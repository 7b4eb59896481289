"""What `rackserve verify` looks at.

Here are the plans of what hosts look at, which Ansible's filters use too, and the common words. The checks from the
controller (`_edge`) and the reading of what hosts found (`_evidence`) are imported by name: Ansible needs neither.
"""

from __future__ import annotations

from rackserve.checks._plan import host_checks, host_facts, status_checks
from rackserve.checks._types import Check, CheckResult, EdgeTarget

__all__ = ["Check", "CheckResult", "EdgeTarget", "host_checks", "host_facts", "status_checks"]
