"""What the roles hand over of a host, as Ansible read it: typed here, and judged by the other modules."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackserve._schema import plain
from rackserve.gpu import GpuFacts
from rackserve.preflight._driver import DriverRequest, driver_refusal, find_set, package_names, plan_of
from rackserve.preflight._driver_inputs import DriverInputs, validate_driver_inputs
from rackserve.preflight._judge import judge
from rackserve.preflight._parts import parts_for
from rackserve.preflight._types import Host, HostFacts, HostSpec
from rackserve.vllm import release_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.bundle import Manifest


def refusal_of(
    manifest: Manifest,
    bundle: str,
    wanted: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    name: str,
    gpus: Mapping[str, dict[str, Any]],
) -> str:
    """Return everything that refuses a host, empty when nothing does.

    Args:
        manifest: the bundle's.
        bundle: its folder on the controller.
        wanted: what the inventory asks of the host, as `HostSpec`.
        facts: what the module host_facts read.
        name: the host's.
        gpus: what rackserve_gpu_facts read, by host: of this one and of those that serve the same instances.
    """
    known = HostFacts(**{key: value for key, value in facts.items() if key in HostFacts.__dataclass_fields__})
    peers = {host: GpuFacts.of(read) for host, read in gpus.items()}
    judgement = judge(HostSpec(**wanted), manifest, Host(name, known, peers.get(name), peers), Path(bundle))
    return "" if judgement.fits else judgement.text


def gpus_of_peers(
    hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], name: str, fact: str
) -> dict[str, Any]:
    """Return what rackserve_gpu_facts read, by host, of a host and of those that serve the very same instances."""
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
    return list(parts_for(manifest, release, instances, **runtime, wish=DriverRequest(**driver)))


def host_driver(
    manifest: Manifest,
    wish: Mapping[str, Any],
    given: Mapping[str, Any],
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
        wish: what the inventory says of the driver, as `DriverRequest`.
        given: what else it says, as `DriverInputs`.
        host: what the module host_facts read.
        facts: what the module rackserve_gpu_facts read.
        root: the bundle on the host.
        kernels: those that the modules are built for.
        vllm_version: the host's release, which decides the oldest driver.
        gpu_required: whether a host without a GPU is refused.

    Returns:
        `problems`, sentences on the inventory; `refusal`, the table of what refuses the host, empty when nothing does;
        `set`, what the module rackserve_driver is to install, empty where none comes from the bundle.
    """
    asked, kept, read = DriverRequest(**wish), host["drivers"], GpuFacts.of(facts)
    plan = plan_of(asked, manifest, host["release"], kept)
    return {
        "problems": validate_driver_inputs(asked, DriverInputs(**given), manifest, host["release"], kept),
        "refusal": driver_refusal(read, plan, release_of(vllm_version), kernels, gpu_required=gpu_required),
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
