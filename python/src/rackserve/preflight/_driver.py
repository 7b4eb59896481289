"""The NVIDIA driver of a host: which set it gets, what keeps that from serving, before anything changes and after.

Pure functions over the inventory's words, the bundle's manifest and what was read on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from rackserve.preflight._driver_rows import DriverPlan, driver_rows
from rackserve.preflight._rows import refused, table_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.bundle import Manifest
    from rackserve.gpu import GpuFacts
    from rackserve.vllm import Release

_GIVEN_AWAY: Final = "vfio-pci"  # a virtual machine has it
_OF_NVSWITCH: Final = ("nvidia-fabricmanager", "libnvidia-nscq", "libnvsdm")
_HEADERS: Final = "linux-headers-"


@dataclass(frozen=True)
class DriverRequest:
    """What an inventory says of the driver; empty texts leave it to the bundle."""

    source: Literal["preinstalled", "bundle", "runfile"] = "preinstalled"
    version: str = ""
    modules: str = ""
    reboot_allowed: bool = False
    signed: bool = False

    def takes(self, version: str, flavour: str) -> bool:
        """Tell whether a set is one that the inventory asks for."""
        return self.version in ("", version) and self.modules in ("", flavour)


@dataclass(frozen=True)
class DriverSet:
    """A driver set that a host can be given.

    Attributes:
        path: its apt repository: in the bundle, or on the host where `kept`.
        install: packages that it asks for, of which a host may need fewer.
        packages: versions of the whole repository by name.
        kernels: those whose headers it has.
    """

    version: str
    flavour: str
    path: str
    install: tuple[str, ...]
    packages: Mapping[str, str]
    kernels: tuple[str, ...]
    kept: bool = False


def find_set(
    wish: DriverRequest, manifest: Manifest, release: str, kept: Sequence[Mapping[str, Any]] = ()
) -> DriverSet | None:
    """Return the set that a host gets: the bundle's, else one that it keeps of an earlier bundle; None if neither fits.

    Args:
        wish: what the inventory says.
        manifest: the bundle's.
        release: the host's Debian.
        kept: sets on the host, as the role wrote them down. One is taken only by its version.
    """
    if wish.source != "bundle":
        return None
    found = [
        DriverSet(d.version, d.flavour, d.path, d.install, d.packages, d.kernels)
        for d in manifest.drivers
        if d.release == release
    ]
    if wish.version:
        names = ("version", "flavour", "path", "packages")
        found += [
            DriverSet(**{n: k[n] for n in names}, install=tuple(k["install"]), kernels=tuple(k["kernels"]), kept=True)
            for k in kept
        ]
    return next((one for one in found if wish.takes(one.version, one.flavour)), None)


def plan_of(
    wish: DriverRequest, manifest: Manifest, release: str, kept: Sequence[Mapping[str, Any]] = ()
) -> DriverPlan:
    """Return what will be done about the driver, for preflight; arguments as of `find_set`."""
    if wish.source == "preinstalled":
        return DriverPlan()
    chosen = find_set(wish, manifest, release, kept)
    return DriverPlan(
        wish.source,
        chosen.version if chosen else wish.version if wish.source == "runfile" and wish.version else None,
        chosen.flavour if chosen else wish.modules or None,
        chosen.kernels if chosen else (),
        fabric_manager=chosen is not None and any(name.startswith(_OF_NVSWITCH[0]) for name in chosen.packages),
        reboots=wish.reboot_allowed,
        signs=wish.signed,
    )


def package_names(chosen: DriverSet, kernels: Sequence[str], *, nvswitch: bool) -> list[str]:
    """Return what one host asks for: headers of its own kernels, and what NVSwitches need where they are."""
    headers = {f"{_HEADERS}{kernel}" for kernel in kernels}
    return [
        name
        for name in chosen.install
        if (nvswitch or not name.startswith(_OF_NVSWITCH)) and (name in headers or not name.startswith(_HEADERS))
    ]


def driver_refusal(
    facts: GpuFacts, plan: DriverPlan, release: Release, kernels: Sequence[str] = (), *, gpu_required: bool = True
) -> str:
    """Return the table of what refuses a host's driver, empty when nothing does.

    Args:
        facts: what the host is.
        plan: what will be done about its driver.
        release: the vLLM that is to run on it.
        kernels: those that the modules are built for; empty is the one that runs.
        gpu_required: whether a host without a GPU is refused.
    """
    rows = []
    for kernel in kernels or [facts.host.kernel]:
        host = facts.host.model_copy(update={"kernel": kernel})
        rows += driver_rows(facts.model_copy(update={"host": host}), facts.gpus, plan, release)
    rows = list(dict.fromkeys(row for row in rows if gpu_required or row.what != "GPU"))
    return table_of(rows) if refused(rows) else ""


def reboot_reasons(facts: GpuFacts, version: str = "", modules: str = "") -> list[str]:
    """Return why a host must be rebooted before its driver can serve; arguments as of `driver_problems`."""
    found = list(facts.host.reboot)
    loaded = facts.driver.version
    if facts.gpus and facts.host.nouveau:
        found.append("nouveau is loaded")
    if loaded and version and loaded != version and not any(loaded in reason for reason in found):
        found.append(f"driver {loaded} is loaded, {version} is installed")
    if loaded == version and modules and facts.driver.modules not in (None, modules):
        found.append(f"the {facts.driver.modules} modules are loaded, the {modules} ones are installed")
    return found


def driver_problems(facts: GpuFacts, version: str = "", *, fresh: bool = False) -> list[str]:
    """Return why a driver does not serve as it should; an empty list is one that does.

    Args:
        facts: what the host is.
        version: the exact one that must answer; empty is any.
        fresh: it was just installed or booted, so that any Xid since the boot speaks against it.
    """
    driver, host = facts.driver, facts.host
    if driver.cuda is None:
        return [f"it does not answer: {driver.problem}; run modprobe nvidia and nvidia-smi, and look for NVRM in dmesg"]
    found = []
    if version and driver.version != version:
        found.append(f"{driver.version} answers, and {version} is wanted")
    silent = [gpu.bus_id for gpu in facts.gpus if gpu.index is None and gpu.kernel_driver != _GIVEN_AWAY]
    if silent:
        found.append(f"it does not show {', '.join(silent)}, which the PCI bus has")
    if host.missing_nodes:
        found.append(f"{', '.join(host.missing_nodes)} is not there; run nvidia-modprobe -c 0 -u as root")
    manager = host.fabric_manager
    if host.nvswitches and (manager.version != driver.version or manager.state != "active"):
        found.append(f"the fabric manager is {manager.version or 'not there'}, {manager.state or 'not running'}")
    if fresh and host.xids:
        codes = ", ".join(f"{xid.code} of {xid.bus_id}" for xid in host.xids)
        found.append(f"Xid since the boot: {codes}")
    return found
