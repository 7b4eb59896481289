"""Refuse early: the inventory, the bundle and a host compared, and all that is wrong said before anything changes.

Pure functions over what was read on the host (modules `host_facts` and `rackserve_gpu_facts`). A host's result is
sentences on inventory and bundle, and one table of what the host must have.
"""

from rackserve.preflight._driver import (
    DriverRequest,
    driver_problems,
    driver_refusal,
    find_set,
    package_names,
    plan_of,
    reboot_reasons,
)
from rackserve.preflight._driver_inputs import DriverInputs, validate_driver_inputs
from rackserve.preflight._driver_rows import DriverPlan
from rackserve.preflight._host import gpus_of_peers, host_driver, host_parts, refusal_of
from rackserve.preflight._judge import capacity_question, judge
from rackserve.preflight._parts import EXPORTER_PARTS, find_runtime, find_snapshots, parts_for, wanted_snapshots
from rackserve.preflight._rows import Row, Verdict, refused, table_of
from rackserve.preflight._types import Host, HostFacts, HostSpec
from rackserve.preflight._unknown_names import unknown_names

__all__ = [
    "EXPORTER_PARTS",
    "DriverInputs",
    "DriverPlan",
    "DriverRequest",
    "Host",
    "HostFacts",
    "HostSpec",
    "Row",
    "Verdict",
    "capacity_question",
    "driver_problems",
    "driver_refusal",
    "find_runtime",
    "find_set",
    "find_snapshots",
    "gpus_of_peers",
    "host_driver",
    "host_parts",
    "judge",
    "package_names",
    "parts_for",
    "plan_of",
    "reboot_reasons",
    "refusal_of",
    "refused",
    "table_of",
    "unknown_names",
    "validate_driver_inputs",
    "wanted_snapshots",
]
