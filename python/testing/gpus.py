"""Declared stand-ins for what rackserve_gpu_facts reads: no such GPU was asked. The H200 is what one answered."""

from __future__ import annotations

from typing import Any

from rackserve.gpu import GpuFacts

_GIB = 1 << 30
_KINDS: dict[str, tuple[str, str, tuple[int, int], int]] = {
    "V100": ("1db5", "Tesla V100-SXM2-32GB", (7, 0), 32),
    "T4": ("1eb8", "Tesla T4", (7, 5), 15),
    "A100": ("20b2", "NVIDIA A100-SXM4-80GB", (8, 0), 80),
    "A10": ("2236", "NVIDIA A10", (8, 6), 24),
    "H100": ("2330", "NVIDIA H100 80GB HBM3", (9, 0), 80),
    "H200": ("2335", "NVIDIA H200", (9, 0), 140),
    "B200": ("2901", "NVIDIA B200", (10, 0), 179),
}


def uuid_of(index: int) -> str:
    return f"GPU-{index:08x}-0000-0000-0000-000000000000"


def slice_of(index: int) -> str:
    return f"MIG-{index:08x}-0000-0000-0000-000000000000"


def gpu(kind: str, index: int, **changes: Any) -> dict[str, Any]:
    device_id, name, capability, size = _KINDS[kind]
    return {
        "bus_id": f"0000:{0x10 + index:02x}:00.0",
        "device_id": device_id,
        "index": index,
        "name": name,
        "uuid": uuid_of(index),
        "memory": size * _GIB,
        "reserved": 0,
        "capability": list(capability),
        "mig": False,
        **changes,
    }


def bare(kind: str, index: int) -> dict[str, Any]:
    """Return a GPU as the PCI bus alone shows it."""
    return {key: value for key, value in gpu(kind, index).items() if key in ("bus_id", "device_id")}


def facts(
    *gpus: dict[str, Any], driver: str | None = "580.95.05", cuda: str = "13.0", modules: str = "open", **host: Any
) -> GpuFacts:
    """Return a host's facts; `driver` None is a host without one."""
    read = {"version": driver, "cuda": cuda, "modules": modules, "installed": driver, "problem": None}
    none = {"problem": "libnvidia-ml.so.1 is not on the host"}
    base = {"kernel": "6.1.0-47-amd64", "glibc": "2.36", "secure_boot": False, "memory": 512 * _GIB}
    return GpuFacts.of({"gpus": list(gpus), "driver": read if driver else none, "host": {**base, **host}})
