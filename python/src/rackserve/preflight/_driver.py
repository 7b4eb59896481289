"""The NVIDIA driver of a host: which set is installed, and whether it can serve, before and after the change.

Pure functions over the inventory, the bundle's manifest and what was read on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from rackserve.preflight._driver_rows import DriverPlan, driver_rows
from rackserve.preflight._rows import notes, refused, table_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.bundle import Manifest
    from rackserve.gpu import GpuFacts
    from rackserve.vllm import Release

_PASSTHROUGH: Final = "vfio-pci"  # passed through to a virtual machine
_NVSWITCH_PACKAGES: Final = ("nvidia-fabricmanager", "libnvidia-nscq", "libnvsdm")
_HEADERS: Final = "linux-headers-"


@dataclass(frozen=True)
class DriverRequest:
    """The driver that an inventory requests; empty fields leave the choice to the bundle."""

    source: Literal["preinstalled", "bundle", "runfile"] = "preinstalled"
    version: str = ""
    modules: str = ""
    reboot_allowed: bool = False
    signed: bool = False

    def takes(self, version: str, flavour: str) -> bool:
        """Return whether a set matches the request."""
        return self.version in ("", version) and self.modules in ("", flavour)


@dataclass(frozen=True)
class DriverSet:
    """A driver set that can be installed on a host.

    Attributes:
        path: its apt repository: in the bundle, or on the host where `kept`.
        install: packages to install, of which a host may need fewer.
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
    request: DriverRequest, manifest: Manifest, release: str, kept: Sequence[Mapping[str, Any]] = ()
) -> DriverSet | None:
    """Return the set for a host: the bundle's, else a kept one of an earlier bundle; None if neither matches.

    Args:
        request: the driver that the inventory requests.
        manifest: the bundle's.
        release: the host's Debian.
        kept: sets kept on the host, as the role recorded them. One is used only if its version is requested.
    """
    if request.source != "bundle":
        return None
    found = [
        DriverSet(d.version, d.flavour, d.path, d.install, d.packages, d.kernels)
        for d in manifest.drivers
        if d.release == release
    ]
    if request.version:
        names = ("version", "flavour", "path", "packages")
        found += [
            DriverSet(**{n: k[n] for n in names}, install=tuple(k["install"]), kernels=tuple(k["kernels"]), kept=True)
            for k in kept
            if {*names, "install", "kernels"} <= k.keys()  # one that an interrupted run left half written is none
        ]
    return next((one for one in found if request.takes(one.version, one.flavour)), None)


def plan_of(
    request: DriverRequest, manifest: Manifest, release: str, kept: Sequence[Mapping[str, Any]] = ()
) -> DriverPlan:
    """Return the plan for the driver, for preflight; arguments as of `find_set`."""
    if request.source == "preinstalled":
        return DriverPlan()
    chosen = find_set(request, manifest, release, kept)
    return DriverPlan(
        request.source,
        chosen.version if chosen else request.version if request.source == "runfile" and request.version else None,
        chosen.flavour if chosen else request.modules or None,
        chosen.kernels if chosen else (),
        fabric_manager=chosen is not None and any(name.startswith(_NVSWITCH_PACKAGES[0]) for name in chosen.packages),
        reboots=request.reboot_allowed,
        signs=request.signed,
    )


def package_names(chosen: DriverSet, kernels: Sequence[str], *, nvswitch: bool) -> list[str]:
    """Return the packages for one host: headers of its own kernels, and the NVSwitch packages where it has any."""
    headers = {f"{_HEADERS}{kernel}" for kernel in kernels}
    return [
        name
        for name in chosen.install
        if (nvswitch or not name.startswith(_NVSWITCH_PACKAGES)) and (name in headers or not name.startswith(_HEADERS))
    ]


def validate_driver_plan(
    facts: GpuFacts, plan: DriverPlan, release: Release, kernels: Sequence[str] = (), *, gpu_required: bool = True
) -> str:
    """Return the table of a host's driver requirements when one is not met, else an empty text; see below."""
    return str(judge_driver_plan(facts, plan, release, kernels, gpu_required=gpu_required)["problems"])


def judge_driver_plan(
    facts: GpuFacts, plan: DriverPlan, release: Release, kernels: Sequence[str] = (), *, gpu_required: bool = True
) -> dict[str, Any]:
    """Return `problems`, the table of a host's driver requirements when one is not met, and `notes`, sentences.

    Args:
        facts: the host's facts.
        plan: the plan for its driver.
        release: the vLLM that is to run on it.
        kernels: those that the modules are built for; empty is the running one.
        gpu_required: whether a host without a GPU is refused.
    """
    rows = []
    for kernel in kernels or [facts.host.kernel]:
        host = facts.host.model_copy(update={"kernel": kernel})
        rows += driver_rows(facts.model_copy(update={"host": host}), facts.gpus, plan, release)
    rows = list(dict.fromkeys(row for row in rows if gpu_required or row.what != "GPU"))
    return {"problems": table_of(rows), "notes": []} if refused(rows) else {"problems": "", "notes": notes(rows)}


def reboot_reasons(facts: GpuFacts, version: str = "", modules: str = "") -> list[str]:
    """Return why a host must be rebooted before its driver can serve; arguments as of `validate_driver`."""
    found = list(facts.host.reboot)
    loaded = facts.driver.version
    if facts.gpus and facts.host.nouveau:
        found.append("nouveau is loaded")
    if loaded and version and loaded != version and not any(loaded in reason for reason in found):
        found.append(f"driver {loaded} is loaded, {version} is installed")
    if loaded == version and modules and facts.driver.modules not in (None, modules):
        found.append(f"the {facts.driver.modules} modules are loaded, the {modules} ones are installed")
    return found


def driver_change(
    facts: GpuFacts,
    request: Mapping[str, Any],
    would: Mapping[str, Any],
    kept: Sequence[Mapping[str, Any]],
    *,
    version: str,
    modules: str,
    placed: bool,
    seconds: float,
) -> dict[str, Any]:
    """Return what the role would change beneath the engines of a host.

    Modules that are built for another kernel, holds and further packages disturb no engine and are no change.

    Args:
        facts: the host's facts.
        request: the requested driver, as `DriverRequest`.
        would: what rackserve_driver returned in check mode; empty where the driver is not the bundle's.
        kept: driver sets that the host keeps.
        version: the expected one.
        modules: the expected ones, open or proprietary; empty is any.
        placed: whether NVIDIA's installer has been run already, where it is the source.
        seconds: that a reboot may take.

    Returns:
        `words`, what changes, empty for nothing; `waits`, why the host would then wait for a reboot that is not
        allowed; `back`, version and modules of the kept set from before, empty without one; `seconds`.
    """
    asked, installed = DriverRequest(**request), list(would.get("installed", []))
    if asked.source == "preinstalled":
        return {"words": [], "waits": [], "back": {}, "seconds": 0}
    current = would.get("current", "")
    repaired = current == f"{version}-{modules}"
    words, back = [], {}
    if installed and not repaired:
        sets = {f"{one['version']}-{one['flavour']}": one for one in kept}
        back = {"version": sets[current]["version"], "modules": sets[current]["flavour"]} if current in sets else {}
    if installed and repaired:
        words.append(f"packages of driver {version}: {', '.join(installed)}")
    elif installed or (asked.source == "runfile" and not placed):
        old = current.partition("-")[0] or facts.driver.version or facts.driver.installed or "none"
        words.append(f"driver {old} -> {version}")
    reasons = reboot_reasons(facts, version, modules)
    if reasons and asked.reboot_allowed:
        words.append(f"reboot: {', '.join(reasons)}")
    waits = reasons if words and not asked.reboot_allowed else []
    return {"words": words, "waits": waits, "back": back, "seconds": seconds}


def validate_driver(facts: GpuFacts, version: str = "", *, fresh: bool = False) -> list[str]:
    """Return the problems of the running driver; empty when it is healthy.

    Args:
        facts: the host's facts.
        version: the exact version that must be loaded; empty is any.
        fresh: it was just installed or booted, so that any Xid since the boot counts as a problem.
    """
    driver, host = facts.driver, facts.host
    if not driver.answers:
        return [f"it does not answer: {driver.problem}; run modprobe nvidia and nvidia-smi, and look for NVRM in dmesg"]
    found = []
    if version and driver.version not in (version, None):
        found.append(f"{driver.version} answers, and {version} is wanted")
    missing = [gpu for gpu in facts.gpus if gpu.index is None and gpu.kernel_driver != _PASSTHROUGH]
    if missing:
        names = ", ".join(gpu.bus_id + (f" ({gpu.problem})" if gpu.problem else "") for gpu in missing)
        found.append(f"it does not show {names}, which the PCI bus has")
    if host.missing_nodes:
        found.append(f"{', '.join(host.missing_nodes)} is missing; run nvidia-modprobe -c 0 -u as root")
    manager = host.fabric_manager
    if host.nvswitches and (manager.version != driver.version or manager.state != "active"):
        found.append(f"the fabric manager is {manager.version or 'not installed'}, {manager.state or 'not running'}")
    apart = [f"{gpu.bus_id} {gpu.fabric}" for gpu in facts.gpus if gpu.fabric and gpu.fabric.startswith("failed")]
    if apart:
        found.append(f"the fabric of {', '.join(apart)}; look at journalctl -u nvidia-fabricmanager")
    if fresh and host.xids:
        codes = ", ".join(f"{xid.code} of {xid.bus_id}" for xid in host.xids)
        found.append(f"Xid since the boot: {codes}")
    return found
