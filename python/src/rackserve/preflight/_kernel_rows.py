"""The rows about a host's kernel: headers, whether the driver builds on it, Secure Boot, nouveau."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rackserve.gpu import dotted, hardware
from rackserve.preflight._rows import Row, Verdict, row

if TYPE_CHECKING:
    from rackserve.gpu import GpuFacts
    from rackserve.preflight._driver_rows import DriverPlan


def headers_row(facts: GpuFacts, plan: DriverPlan) -> Row:
    """Require the headers of the kernel that modules are built for: on the host, or in the bundle."""
    kernel, carried = facts.host.kernel, facts.host.kernel in plan.kernels
    present = kernel in facts.host.header_kernels
    if present or carried:
        found = "on the host" if present else "in the bundle"
    else:
        found = f"not on the host, and the bundle has those of {', '.join(plan.kernels) or 'no kernel'}"
    fix = f"boot a kernel whose headers the bundle has, or add {kernel} to the driver's kernels in bundle.yml"
    return row("kernel headers", f"those of {kernel}", found, fix, fits=present or carried)


def kernel_row(facts: GpuFacts, plan: DriverPlan) -> Row | None:
    """Judge whether the driver's modules build on the kernel, by `driver_kernels` of gpus.yml."""
    kernel = re.match(r"(\d+)\.(\d+)", facts.host.kernel)
    if plan.version is None or kernel is None:
        return None
    running = int(kernel[1]), int(kernel[2])
    builds, fails = hardware().kernels_of(plan.version)
    newest = builds.builds if builds else None
    wanted = f"{dotted(newest)} or older for driver {plan.version}" if newest else f"one for driver {plan.version}"
    if newest and running <= newest:
        return row("kernel", wanted, facts.host.kernel, "", fits=True)
    fix = "try the driver on one host first, or boot an older kernel, or install a newer driver"
    if fails and fails.fails and running >= fails.fails:
        found = f"{facts.host.kernel}; {fails.driver} did not build on {dotted(fails.fails)} ({fails.source})"
        return Row("kernel", wanted, found, Verdict.WARNING, fix)
    return Row("kernel", wanted, f"{facts.host.kernel}, not known to build", Verdict.UNKNOWN, fix)


def secure_boot_row(facts: GpuFacts, plan: DriverPlan) -> Row | None:
    """Refuse Secure Boot where modules are built without a key, or where the driver does not answer."""
    on, not_loaded = facts.host.secure_boot, not facts.driver.answers
    if plan.builds:
        fix = "switch Secure Boot off in the firmware, or give the role nvidia_driver a key to sign the modules with"
        found = {True: "on", False: "off", None: "not reported by the firmware"}[on]
        fits = True if plan.signs else None if on is None else not on
        return row("Secure Boot", "off, or a key to sign the modules with", found, fix, fits=fits)
    if on and not_loaded:
        fix = "enrol the key of the driver's modules (mokutil --import, then at the console), or switch Secure Boot off"
        return row("Secure Boot", "off, or modules signed", "on, and the driver does not answer", fix, fits=False)
    return None


def nouveau_row(facts: GpuFacts, plan: DriverPlan) -> Row:
    """Refuse the kernel's own driver, unless the role may reboot the host without it."""
    loaded, handled = facts.host.nouveau, plan.builds and plan.reboots
    found = ("loaded; goes with the driver's reboot" if handled else "loaded") if loaded else "not loaded"
    fix = (
        "set nvidia_driver_reboot_allowed: true"
        if plan.builds
        else "write `blacklist nouveau` to /etc/modprobe.d, run update-initramfs -u, and reboot"
    )
    return row("nouveau", "not loaded", found, fix, fits=not loaded or handled)
