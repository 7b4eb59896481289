#!/usr/bin/python
"""Read a host's GPUs, its NVIDIA driver, and what decides whether they can serve."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rackserve_gpu_facts
short_description: Read the GPUs, the NVIDIA driver and what both depend on
description:
  - Reads GPUs from NVML where a driver answers, and from the PCI bus in any case, so that a host without a driver and a
    GPU that has fallen off the bus are seen too. Needs nothing but the host's own Python. Never changes anything.
options: {}
author: rackserve
"""
EXAMPLES = r"""
- name: Read the GPUs
  rackserve_gpu_facts:
"""
RETURN = r"""
gpus:
  description: >-
    Every GPU: bus_id, device_id, seen_on_bus, kernel_driver, acs_redirect (of a bridge above it), iommu (the type of
    its group, empty without one); with a driver also index, name, uuid, memory and reserved in bytes, capability, mig,
    slices, nvlinks, ecc, fabric, and unread, the reason by field that NVML did not give. One that the driver cannot
    open has problem instead.
  type: list
  returned: always
driver:
  description: >-
    version, cuda, modules, installed, null is unknown; problem is why it does not answer, unread the reason by field.
  type: dict
  returned: always
host:
  description: >-
    kernel, header_kernels, secure_boot, nouveau, nvswitches, fabric_manager, reboot, glibc, nvcc (its CUDA release,
    empty where it does not tell, null without one), memory, xids since the boot, missing_nodes.
  type: dict
  returned: always
"""

import ctypes
import glob
import os
import platform
import re
import shutil
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_host import run
from ansible.module_utils.rackserve_nvml import LIBRARY, VERSION_MISMATCH, NvmlError, read_nvml
from ansible.module_utils.rackserve_pci import SWITCH_CLASS, merge_gpus, pci_devices, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_XID = re.compile(r"NVRM: Xid \(PCI:(?P<bus>[0-9a-fA-F:]+)[^)]*\): (?P<code>\d+)")
# What CUDA opens besides the GPUs themselves. A service in a sandbox cannot have them made.
_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm")
# After four bytes of attributes the variable has one byte: 1 when Secure Boot is on (UEFI 2.10, 3.3).
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_VARIABLE_BYTES = 5
_LOADED = re.compile(r"(?P<open>Open )?Kernel Module\b.*?(?P<version>\d+\.\d+(\.\d+)?)")


def parse_loaded(text: str) -> tuple[str | None, str | None]:
    """Return version and flavour of the loaded module, from /proc/driver/nvidia/version."""
    match = _LOADED.search(text)
    if match is None:
        return None, None
    return match["version"], "open" if match["open"] else "proprietary"


def parse_xids(text: str) -> list[dict[str, Any]]:
    """Return the Xid errors of a kernel log: bus_id without the function, code."""
    return [{"bus_id": match["bus"].lower(), "code": int(match["code"])} for match in _XID.finditer(text)]


def secure_boot(root: str = "/") -> bool | None:
    """Return whether Secure Boot is on; None when the firmware is UEFI and does not say."""
    if not os.path.isdir(os.path.join(root, "sys/firmware/efi")):
        return False
    try:
        with open(os.path.join(root, _SECURE_BOOT), "rb") as source:
            data = source.read()
    except OSError:
        return None
    return bool(data[-1]) if len(data) == _VARIABLE_BYTES else None


def reboot_reasons(root: str, loaded: str | None, installed: str | None, *, mismatch: bool) -> list[str]:
    """Return why the host waits for a reboot; none when it does not."""
    found = []
    if os.path.exists(os.path.join(root, "run/reboot-required")):
        packages = ", ".join(sorted(set(read_text(os.path.join(root, "run/reboot-required.pkgs")).split())))
        found.append(f"/run/reboot-required ({packages or 'no package named'})")
    if loaded and installed and loaded != installed:
        found.append(f"driver {loaded} is loaded, {installed} is installed")
    elif mismatch:
        found.append("the driver's libraries are not of the loaded driver's version")
    return found


def first_version(text: str) -> str | None:
    """Return the first dotted number of a program's output, such as the fabric manager's version."""
    found = re.search(r"\d+\.\d+(?:\.\d+)*", text)
    return found[0] if found else None


def nvcc_release(text: str) -> str:
    """Return the CUDA release of `nvcc --version`, empty where it does not tell."""
    found = re.search(r"release (\d+\.\d+)", text)
    return found[1] if found else ""


def find_nvcc(environment: Mapping[str, str]) -> str | None:
    """Return the nvcc that FlashInfer would start: of CUDA_HOME, the PATH, /usr/local/cuda (flashinfer.jit.cpp_ext)."""
    home = environment.get("CUDA_HOME") or environment.get("CUDA_PATH")
    if home:
        return shutil.which(os.path.join(home, "bin", "nvcc"))
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def output_of(*argv: str) -> str:
    """Return what a program writes to standard output; nothing when it is not there or fails."""
    if shutil.which(argv[0]) is None:
        return ""
    try:
        code, out, _ = run(list(argv))
    except OSError:
        return ""
    return str(out) if code == 0 else ""


def kernel_log() -> str:
    """Return the kernel's messages since the boot."""
    return output_of("journalctl", "--dmesg", "--boot", "--output=cat", "--no-pager") or output_of("dmesg")


def read_driver() -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Return the driver, what NVML shows, and whether its libraries are of another version than its module."""
    loaded, modules = parse_loaded(read_text("/proc/driver/nvidia/version"))
    installed = output_of("modinfo", "-F", "version", "nvidia").strip() or None
    if modules is None and installed:
        modules = "open" if "GPL" in output_of("modinfo", "-F", "license", "nvidia") else "proprietary"
    driver: dict[str, Any] = {"version": loaded, "cuda": None, "modules": modules, "installed": installed, "unread": {}}
    try:
        shown = read_nvml(ctypes.CDLL(LIBRARY))
    except OSError:
        return {**driver, "problem": f"{LIBRARY} is not on the host"}, {}, False
    except NvmlError as failed:
        return {**driver, "problem": str(failed)}, {}, failed.code == VERSION_MISMATCH
    answer = {"version": shown["version"] or loaded or installed, "cuda": shown["cuda"], "unread": shown["unread"]}
    return {**driver, **answer, "problem": None}, shown, False


def read_host(devices: list[dict[str, Any]], driver: dict[str, Any], *, mismatch: bool) -> dict[str, Any]:
    """Return what the driver and the GPUs depend on."""
    kernel = platform.release()
    show = ("systemctl", "show", "--property=ActiveState", "--value", "nvidia-fabricmanager")
    nvcc = find_nvcc(os.environ)
    memory = re.search(r"MemTotal:\s+(\d+) kB", read_text("/proc/meminfo"))
    return {
        "kernel": kernel,
        "header_kernels": sorted(path.split("/")[3] for path in glob.glob("/lib/modules/*/build/Makefile")),
        "secure_boot": secure_boot(),
        "nouveau": os.path.isdir("/sys/module/nouveau"),
        "nvswitches": sum(device["class"] == SWITCH_CLASS for device in devices),
        "fabric_manager": {
            "version": first_version(output_of("nv-fabricmanager", "--version")),
            "state": output_of(*show).strip(),
        },
        "reboot": reboot_reasons("/", driver["version"], driver["installed"], mismatch=mismatch),
        "glibc": platform.libc_ver()[1],
        "nvcc": nvcc_release(output_of(nvcc, "--version")) if nvcc else None,
        "memory": int(memory[1]) * 1024 if memory else 0,
        "xids": parse_xids(kernel_log()),
        "missing_nodes": [node for node in _NODES if not os.path.exists(node)],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    devices = pci_devices()
    driver, shown, mismatch = read_driver()
    host = read_host(devices, driver, mismatch=mismatch)
    gpus = merge_gpus(shown.get("gpus", []), devices, shown.get("gone"))
    module.exit_json(changed=False, gpus=gpus, driver=driver, host=host)


if __name__ == "__main__":
    main()
