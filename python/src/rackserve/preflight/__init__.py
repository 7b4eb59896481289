"""Preflight: compares the inventory, the bundle and a host, and reports every problem before anything changes.

Pure functions over what was read on the host (modules `host_facts` and `rackserve_gpu_facts`). A host's result is
sentences on inventory and bundle, and one table of the host's requirements.
"""

from rackserve.preflight._compare import capacity_request, compare
from rackserve.preflight._driver import (
    DriverRequest,
    driver_change,
    find_set,
    package_names,
    plan_of,
    reboot_reasons,
    validate_driver,
    validate_driver_plan,
)
from rackserve.preflight._driver_inputs import DriverInputs, validate_driver_inputs
from rackserve.preflight._driver_rows import DriverPlan
from rackserve.preflight._host import gpus_of_peers, host_driver, host_parts, validate_host
from rackserve.preflight._host_rows import validate_service_user
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
    "capacity_request",
    "compare",
    "driver_change",
    "find_runtime",
    "find_set",
    "find_snapshots",
    "gpus_of_peers",
    "host_driver",
    "host_parts",
    "package_names",
    "parts_for",
    "plan_of",
    "reboot_reasons",
    "refused",
    "table_of",
    "unknown_names",
    "validate_driver",
    "validate_driver_inputs",
    "validate_driver_plan",
    "validate_host",
    "validate_service_user",
    "wanted_snapshots",
]
