"""The rows about GPUs as a whole and their driver: version, kernel modules, fabric manager, reboots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from rackserve.gpu import hardware
from rackserve.preflight._kernel_rows import headers_row, kernel_row, nouveau_row, secure_boot_row
from rackserve.preflight._rows import Row, Verdict, row
from rackserve.vllm import releases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.gpu import Generation, Gpu, GpuFacts, Modules
    from rackserve.vllm import Release

_FABRIC_STARTING: Final = ("not started", "in progress")
_PASSTHROUGH: Final = "vfio-pci"  # passed through to a virtual machine
_ALL: Final[tuple[Modules, ...]] = ("open", "proprietary")
_NO_GPU: Final = "for a host without a GPU set stack_runtime.flavour: cpu; else seat the GPU and look at lspci -d 10de:"
_LOAD_DRIVER: Final = "run modprobe nvidia and nvidia-smi, and look for NVRM in `dmesg`"
_OTHER_LIBRARY: Final = "another driver's libraries are found first: look at ldconfig -p | grep libcuda"
_OBTAIN_DRIVER: Final = {
    "preinstalled": "install a driver, or set nvidia_driver_source: bundle to have it installed",
    "bundle": "name a driver for this Debian in bundle.yml and build the bundle again",
    "runfile": "set nvidia_driver_version",
}


@dataclass(frozen=True)
class DriverPlan:
    """The plan for the driver: where it comes from, and what it includes.

    Attributes:
        source: `preinstalled` changes nothing; the others build kernel modules on the host.
        version: of the driver to install, None where it is not set.
        kernels: those whose headers come with it.
        fabric_manager: it comes with it too.
        reboots: the host may be rebooted for it.
        signs: modules are signed with a key of the site.
    """

    source: Literal["preinstalled", "bundle", "runfile"] = "preinstalled"
    version: str | None = None
    modules: str | None = None
    kernels: tuple[str, ...] = ()
    fabric_manager: bool = False
    reboots: bool = False
    signs: bool = False

    @property
    def builds(self) -> bool:
        """Whether kernel modules are built on the host."""
        return self.source != "preinstalled"


@dataclass(frozen=True)
class _Driver:
    """The driver that the instances will run on, present or planned; `text` describes it to an operator."""

    version: str | None
    modules: str | None
    cuda: str | None
    text: str
    answers: bool

    @property
    def branch(self) -> int | None:
        first = self.version.split(".")[0] if self.version else ""
        return int(first) if first.isdigit() else None


def driver_rows(facts: GpuFacts, gpus: Sequence[Gpu], plan: DriverPlan, release: Release) -> list[Row]:
    """Return the rows about GPUs and driver.

    Args:
        facts: the host's facts.
        gpus: those that instances use.
        plan: the plan for the driver.
        release: the vLLM that is to run.
    """
    driver = _driver_of(facts, plan)
    generations = [gpu.generation for gpu in gpus if gpu.generation]
    rows = [_gpu_count(facts), _unread(facts), _version(driver, generations, release, plan)]
    rows.append(_modules(driver, generations, plan))
    if plan.builds and plan.version != facts.driver.version:
        rows += [headers_row(facts, plan), kernel_row(facts, plan)]
    rows += [
        secure_boot_row(facts, plan),
        nouveau_row(facts, plan),
        _fabric(facts, gpus, driver, plan),
        _reboot(facts, plan),
    ]
    return [entry for entry in rows if entry]


def _driver_of(facts: GpuFacts, plan: DriverPlan) -> _Driver:
    present = facts.driver
    if plan.builds and (plan.version is None or plan.version != present.version):
        text = f"{plan.version or 'no version'}, to be installed from the {plan.source}"
        return _Driver(plan.version, plan.modules, None, text, answers=True)
    version = present.version or present.installed
    if not present.answers:
        what = version or "none"
        return _Driver(version, present.modules, None, f"{what}; {present.problem}", answers=False)
    text = f"{version or 'version not known'}, CUDA {present.cuda or 'not known'}"
    return _Driver(version, present.modules, present.cuda, text, answers=True)


def _gpu_count(facts: GpuFacts) -> Row:
    """Require a GPU and, where a driver is loaded, that it shows every GPU on the bus."""
    if not facts.gpus:
        return row("GPU", "an NVIDIA GPU", "none on the PCI bus", _NO_GPU, fits=False)
    if not facts.driver.answers:
        return row("GPU", "an NVIDIA GPU", f"{len(facts.gpus)} on the PCI bus", "", fits=True)
    missing = [gpu for gpu in facts.gpus if gpu.index is None and gpu.kernel_driver != _PASSTHROUGH]
    codes = sorted({x.code for x in facts.host.xids for gpu in missing if gpu.bus_id.startswith(x.bus_id)})
    xids = f", after Xid {', '.join(map(str, codes))}" if codes else ""
    reasons = "".join(f" ({reason})" for reason in sorted({gpu.problem for gpu in missing if gpu.problem}))
    absent = f"without {', '.join(gpu.bus_id for gpu in missing)}{reasons}{xids}" if missing else "all of them"
    fix = "look for the GPU in `dmesg`, cold-start the host, and have the GPU exchanged if that does not bring it back"
    return row("GPUs that answer", f"{len(facts.gpus)}, as on the PCI bus", absent, fix, fits=not missing)


def _unread(facts: GpuFacts) -> Row | None:
    """Tell which values NVML did not give: what depends on them is left to vLLM."""
    fields = [f"{field} of the driver ({reason})" for field, reason in facts.driver.unread.items()]
    fields += [f"{field} of {gpu.bus_id} ({reason})" for gpu in facts.gpus for field, reason in gpu.unread.items()]
    if not fields:
        return None
    fix = "look at nvidia-smi -q; what depends on these values is not checked here"
    return Row("values of NVML", "all read", ", ".join(fields), Verdict.UNKNOWN, fix)


def _version(driver: _Driver, generations: Sequence[Generation], release: Release, plan: DriverPlan) -> Row:
    floors = {release.driver: f"CUDA {release.cuda_major} of vLLM {release.version}"}
    floors |= {g.driver.first: g.name for g in generations if g.driver.first and g.driver.first > release.driver}
    floor = max(floors)
    last = min((g.driver.until for g in generations if g.driver.until), default=None)
    wanted = f"{floor} or newer ({floors[floor]})" + (f", up to {last}" if last else "")
    if driver.branch is None:
        fix = _OBTAIN_DRIVER[plan.source]
        answers = driver.answers and not plan.builds
        return row("driver", wanted, driver.text, fix, fits=None if answers else False)
    older = [r.version for r in releases().values() if r.driver <= driver.branch and r.cuda_major < release.cuda_major]
    other = (
        f", or set stack_runtime.vllm to one of {', '.join(older)}"
        if older and driver.branch < floor == release.driver
        else ""
    )
    major = int(driver.cuda.split(".")[0]) if driver.cuda else release.cuda_major
    in_range, cuda_supported = floor <= driver.branch <= (last or driver.branch), major >= release.cuda_major
    fix = (
        f"install driver {last or floor}{other}" if not in_range else _LOAD_DRIVER if cuda_supported else _OTHER_LIBRARY
    )
    return row("driver", wanted, driver.text, fix, fits=in_range and cuda_supported and driver.answers)


def _modules(driver: _Driver, generations: Sequence[Generation], plan: DriverPlan) -> Row | None:
    usable = [flavour for flavour in _ALL if all(flavour in g.modules for g in generations)]
    last = hardware().open_modules_only
    if driver.branch is not None and driver.branch >= last and (plan.builds or driver.modules != "proprietary"):
        if "open" not in usable:
            names = ", ".join(sorted({g.name for g in generations if "open" not in g.modules}))
            fix = f"install a driver below {last}, which still has proprietary modules"
            found = f"driver {last} and later have none"
            return row("kernel modules", f"proprietary ({names})", found, fix, fits=False)
        usable, names = ["open"], f"driver {last} and later have no others"
    elif len(usable) == len(_ALL) or not generations:
        return None
    else:
        names = ", ".join(sorted({g.name for g in generations if set(_ALL) - set(g.modules)}))
    if not usable:
        fix = "give GPUs of these generations hosts of their own"
        return row("kernel modules", f"one flavour for {names}", "no flavour drives them all", fix, fits=False)
    key = f"set nvidia_driver_modules: {usable[0]}"
    fix = key if plan.builds else f"install the driver's {usable[0]} kernel modules"
    fits = driver.modules in usable if driver.modules else None
    return row("kernel modules", f"{usable[0]} ({names})", driver.modules or "not known", fix, fits=fits)


def _fabric(facts: GpuFacts, gpus: Sequence[Gpu], driver: _Driver, plan: DriverPlan) -> Row | None:
    """With NVSwitches, CUDA does not start before the fabric manager runs, in exactly the driver's version.

    Fabric Manager User Guide, "Installing Fabric Manager"; NVIDIA/gpu-operator#544 is what one version off looks like.
    """
    hidden = any(gpu.fabric is None and gpu.known and gpu.known.nvswitch for gpu in gpus)
    behind = {gpu.bus_id: gpu.fabric for gpu in gpus if gpu.fabric and not_up(gpu.fabric)}
    if not (facts.host.nvswitches or hidden or behind):
        return None
    wanted = f"{driver.version or 'of the driver'}, running (NVSwitch)"
    if plan.builds and plan.fabric_manager:
        return row("fabric manager", wanted, "comes with the driver", "", fits=True)
    manager = facts.host.fabric_manager
    if manager.version is None:
        fix = f"install the fabric manager {driver.version or ''}".rstrip() + " and start nvidia-fabricmanager.service"
        return row("fabric manager", wanted, "none", fix, fits=False)
    running = manager.state == "active"
    found = f"{manager.version}, {'running' if running else manager.state or 'not running'}"
    fix = f"install the fabric manager in exactly {driver.version}, hold both, and start nvidia-fabricmanager.service"
    if manager.version != driver.version or not running:
        fits = None if driver.version is None and running else False
        return row("fabric manager", wanted, found, fix, fits=fits)
    if behind:
        states = ", ".join(f"{bus_id} {state}" for bus_id, state in behind.items())
        fix = "wait until `nvidia-smi -q` shows the fabric Completed, else look at journalctl -u nvidia-fabricmanager"
        return row("fabric manager", wanted, f"{found}, and the fabric: {states}", fix, fits=False)
    return row("fabric manager", wanted, found, fix, fits=True)


def not_up(fabric: str) -> bool:
    """Return whether a GPU waits for its fabric, or could not join it: CUDA does not start on it."""
    return fabric in _FABRIC_STARTING or fabric.startswith("failed")


def _reboot(facts: GpuFacts, plan: DriverPlan) -> Row:
    reasons = "; ".join(facts.host.reboot)
    handled = plan.builds and plan.reboots
    fix = "reboot the host" + (", or set nvidia_driver_reboot_allowed: true" if plan.builds else "")
    return Row(
        "pending reboot",
        "none",
        reasons or "none",
        Verdict.FITS if not reasons or handled else Verdict.REFUSED,
        fix,
    )
