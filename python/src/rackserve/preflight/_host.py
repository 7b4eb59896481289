"""Entry points of the filters: converts a host's data from Ansible to types, and calls the other modules."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackserve._schema import plain
from rackserve.gpu import GpuFacts
from rackserve.preflight._compare import compare
from rackserve.preflight._driver import DriverRequest, find_set, judge_driver_plan, package_names, plan_of
from rackserve.preflight._driver_inputs import DriverInputs, validate_driver_inputs
from rackserve.preflight._parts import parts_for
from rackserve.preflight._types import Host, HostFacts, HostSpec
from rackserve.vllm import release_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.bundle import Manifest


def validate_host(
    manifest: Manifest,
    bundle: str,
    wanted: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    name: str,
    gpus: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return what preflight says of a host, for the action reject_problems.

    `problems` is one text with every reason to refuse it, empty when there is none; `notes` are sentences on what
    refuses nothing: warnings, and what is not known.

    Args:
        manifest: the bundle's.
        bundle: its folder on the controller.
        wanted: the inventory's specification of the host, as `HostSpec`.
        facts: of the module host_facts.
        name: the host's.
        gpus: of the module rackserve_gpu_facts, by host: this one and those with the same instances.
    """
    known = HostFacts(**{key: value for key, value in facts.items() if key in HostFacts.__dataclass_fields__})
    peers = {host: GpuFacts.of(read) for host, read in gpus.items()}
    result = compare(HostSpec(**wanted), manifest, Host(name, known, peers.get(name), peers), Path(bundle))
    return {"problems": "" if result.fits else result.text, "notes": result.notes}


def gpus_of_peers(
    hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], name: str, fact: str
) -> dict[str, Any]:
    """Return the facts of rackserve_gpu_facts by host, of a host and of those with the same instances."""
    instances = {host: plain(hostvars[host].get("vllm_instances", [])) for host in hosts}
    read = {host: plain(hostvars[host].get(fact, {})) for host in hosts if instances[host] == instances.get(name)}
    return {host: facts for host, facts in read.items() if "host" in facts}


def host_parts(
    manifest: Manifest,
    release: str,
    instances: Sequence[dict[str, Any]],
    runtime: Mapping[str, str],
    driver: Mapping[str, Any],
) -> list[str]:
    """Return the paths of the bundle that a host needs; see `parts_for`."""
    return list(parts_for(manifest, release, instances, **runtime, request=DriverRequest(**driver)))


def host_driver(
    manifest: Manifest,
    request: Mapping[str, Any],
    inputs: Mapping[str, Any],
    host: Mapping[str, Any],
    facts: dict[str, Any],
    *,
    root: str,
    kernels: Sequence[str],
    vllm_version: str,
    gpu_required: bool,
) -> dict[str, Any]:
    """Return the plan of a host's driver.

    Args:
        manifest: the bundle's.
        request: the requested driver, as `DriverRequest`.
        inputs: the other driver inputs of the inventory, as `DriverInputs`.
        host: of the module host_facts.
        facts: of the module rackserve_gpu_facts.
        root: the bundle on the host.
        kernels: those that the modules are built for.
        vllm_version: the host's release, which decides the oldest driver.
        gpu_required: whether a host without a GPU is refused.

    Returns:
        `problems`, sentences on the inventory; `refusal`, for the action reject_problems, the table of unmet
        requirements, else empty, and notes; `set`, the driver set for the module rackserve_driver, empty where none
        comes from the bundle.
    """
    asked, kept, read = DriverRequest(**request), host["drivers"], GpuFacts.of(facts)
    plan = plan_of(asked, manifest, host["release"], kept)
    return {
        "problems": validate_driver_inputs(asked, DriverInputs(**inputs), manifest, host["release"], kept),
        "refusal": judge_driver_plan(read, plan, release_of(vllm_version), kernels, gpu_required=gpu_required),
        "set": _installable(asked, manifest, host, read, root=root, kernels=kernels),
    }


def _installable(
    asked: DriverRequest,
    manifest: Manifest,
    host: Mapping[str, Any],
    read: GpuFacts,
    *,
    root: str,
    kernels: Sequence[str],
) -> dict[str, Any]:
    chosen = find_set(asked, manifest, host["release"], host["drivers"])
    if chosen is None:
        return {}
    nvswitch = read.host.nvswitches > 0 or any(gpu.known and gpu.known.nvswitch for gpu in read.gpus)
    return {
        **asdict(chosen),
        "path": chosen.path if chosen.kept else f"{root}/{chosen.path}",
        "names": package_names(chosen, kernels, nvswitch=nvswitch),
        "nvswitch": nvswitch,
    }
