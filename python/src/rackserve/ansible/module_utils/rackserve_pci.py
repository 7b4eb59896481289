"""NVIDIA's devices on the PCI bus, from sysfs. Standard library only, Python 3.9 and newer."""

from __future__ import annotations

import glob
import os
import re
from typing import Any

_NVIDIA = "0x10de"
# PCI classes: VGA and 3D controllers are GPUs, a bridge of kind "other" is an NVSwitch.
_GPU_CLASSES = ("0x0300", "0x0302")
SWITCH_CLASS = "0x0680"
_PASSTHROUGH = "vfio-pci"
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_EXTENDED = 256
_ACS = 13
_REDIRECT = 0b1100


def read_text(path: str) -> str:
    """Return the text of a file, nothing when there is none to read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read()
    except OSError:
        return ""


def read_bytes(path: str) -> bytes:
    """Return the bytes of a file, none when there is none to read."""
    try:
        with open(path, "rb") as source:
            return source.read()
    except OSError:
        return b""


def pci_devices(root: str = "/") -> list[dict[str, Any]]:
    """Return NVIDIA's devices on the PCI bus: bus_id, device_id, class, kernel_driver."""
    found = []
    for folder in sorted(glob.glob(os.path.join(root, "sys/bus/pci/devices/*"))):
        vendor, kind, device = (read_text(os.path.join(folder, n)).strip() for n in ("vendor", "class", "device"))
        if vendor == _NVIDIA:
            driver = os.path.join(folder, "driver")
            bound = os.path.basename(os.readlink(driver)) if os.path.islink(driver) else ""
            found.append(
                {
                    "bus_id": os.path.basename(folder).lower(),
                    "device_id": device[len("0x") :].lower(),
                    "class": kind[: len(SWITCH_CLASS)],
                    "kernel_driver": bound,
                    "acs_redirect": acs_redirects(os.path.realpath(folder)),
                    "iommu": iommu_type(folder),
                }
            )
    return found


def acs_redirects(device: str) -> bool | None:
    """Return whether a PCIe bridge above a device sends peer traffic to the root; None when it cannot be read.

    Args:
        device: its folder in /sys/devices, in that of the bridge above it.
    """
    found: list[bool | None] = []
    bridge = os.path.dirname(device)
    while _ADDRESS.fullmatch(os.path.basename(bridge)):
        config = os.path.join(bridge, "config")
        size = os.path.getsize(config) if os.path.exists(config) else 0
        found.append(redirects(read_bytes(config), size))
        bridge = os.path.dirname(bridge)
    return True if True in found else None if None in found else False


def redirects(config: bytes, size: int) -> bool | None:
    """Return whether a bridge's configuration space has ACS redirect on; None where root alone could read that part.

    PCI Express Base Specification, 7.6.3 and 7.7.11: extended capabilities are a list from byte 256, ACS is number 13,
    and its control register has request redirect in bit 2, completion redirect in bit 3.

    Args:
        config: what could be read of it.
        size: of the whole; 256 where the bus has no extended capabilities.
    """
    offset, seen = _EXTENDED, set()
    if not config or len(config) < size:
        return None
    while _EXTENDED <= offset <= len(config) - 8 and offset not in seen:
        seen.add(offset)
        header = int.from_bytes(config[offset : offset + 4], "little")
        if header & 0xFFFF == _ACS:
            return bool(int.from_bytes(config[offset + 6 : offset + 8], "little") & _REDIRECT)
        offset = header >> 20
    return False


def iommu_type(folder: str) -> str | None:
    """Return the type of a device's IOMMU group (identity, DMA, DMA-FQ), empty without one, None when unreadable."""
    group = os.path.join(folder, "iommu_group")
    return (read_text(os.path.join(group, "type")).strip() or None) if os.path.isdir(group) else ""


def merge_gpus(
    shown: list[dict[str, Any]], devices: list[dict[str, Any]], gone: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return every GPU once: what NVML shows of it, and what the bus does.

    NVML counts by PCI address, so that GPUs whose address it does not give are the ones that are left, in this order.

    Args:
        shown: NVML's GPUs; one whose address was not read has no bus_id.
        devices: NVIDIA's devices on the bus.
        gone: why NVML cannot open a GPU, by its index.
    """
    on_bus = {device["bus_id"]: device for device in devices if device["class"] in _GPU_CLASSES}
    by_bus = {gpu["bus_id"]: gpu for gpu in shown if "bus_id" in gpu}
    nameless = [(int(index), {"problem": problem}) for index, problem in (gone or {}).items()]
    nameless += [(gpu["index"], gpu) for gpu in shown if "bus_id" not in gpu]
    left = [name for name in sorted(on_bus) if name not in by_bus and on_bus[name]["kernel_driver"] != _PASSTHROUGH]
    if len(left) == len(nameless):
        in_order = [gpu for _, gpu in sorted(nameless, key=lambda entry: entry[0])]
        by_bus.update(zip(left, in_order))  # noqa: B905 - Python 3.9 runs this
    else:
        by_bus.update({f"unknown {index}": gpu for index, gpu in nameless if "index" in gpu})
    return [
        {
            "device_id": on_bus.get(bus_id, {}).get("device_id", ""),
            "seen_on_bus": bus_id in on_bus,
            "kernel_driver": on_bus.get(bus_id, {}).get("kernel_driver", ""),
            "acs_redirect": on_bus.get(bus_id, {}).get("acs_redirect"),
            "iommu": on_bus.get(bus_id, {}).get("iommu"),
            **by_bus.get(bus_id, {}),
            "bus_id": bus_id,
        }
        for bus_id in sorted(on_bus.keys() | by_bus.keys())
    ]
