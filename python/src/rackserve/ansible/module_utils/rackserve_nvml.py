"""GPU facts from NVIDIA's management library (NVML). Standard library only, Python 3.9 and newer.

The library is called by ctypes and not through nvidia-ml-py: the gate asks before anything of ours is on the host, so a
package would have to travel with every question, and its 7,000 lines wrap the very functions called here. They are
NVML's C interface, which the driver brings itself; `_v2` and the like are part of their names. Structures are laid out
as in nvidia-ml-py 13.610.43, which NVIDIA makes from nvml.h.
"""

from __future__ import annotations

import ctypes
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
DRIVER_NOT_LOADED = 9
VERSION_MISMATCH = 18
_INVALID = 2
_NOT_SUPPORTED = 3
_NOT_FOUND = 6
_MISSING_FUNCTION = 13
# nvmlReturn_t of nvml.h; any other is shown by its number.
_MEANINGS = {
    _INVALID: "invalid argument",
    _NOT_SUPPORTED: "not supported",
    4: "no permission",
    _NOT_FOUND: "not found",
    DRIVER_NOT_LOADED: "the driver is not loaded",
    12: "no library",
    _MISSING_FUNCTION: "this driver lacks the function",
    15: "a GPU has fallen off the bus",
    VERSION_MISMATCH: "the loaded driver and the installed libraries have different versions",
    999: "unknown error",
}
_TEXT = 96
_LINKS = 18
_FABRIC = ("not supported", "not started", "in progress", "completed")


def versioned(structure: type[ctypes.Structure]) -> int:
    """Return what the field `version` of a structure's second version must say (NVML_STRUCT_VERSION)."""
    return ctypes.sizeof(structure) | 2 << 24


class NvmlError(Exception):
    """A function of NVML failed; `code` is its nvmlReturn_t."""

    def __init__(self, function: str, code: int) -> None:
        super().__init__(f"{function}: {_MEANINGS.get(code, f'error {code}')}")
        self.code = code


class Memory(ctypes.Structure):
    """nvmlMemory_v2_t."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("total", ctypes.c_ulonglong),
        ("reserved", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class PciInfo(ctypes.Structure):
    """nvmlPciInfo_t of nvmlDeviceGetPciInfo_v3."""

    _fields_ = (
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("device_id", ctypes.c_uint),
        ("subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    )


class FabricInfo(ctypes.Structure):
    """nvmlGpuFabricInfo_v2_t; the version before it has no size that all drivers agree on."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("cluster", ctypes.c_ubyte * 16),
        ("status", ctypes.c_int),
        ("clique", ctypes.c_uint),
        ("state", ctypes.c_ubyte),
        ("health", ctypes.c_uint),
    )


class Nvml:
    """NVML's functions as calls that return what they read, or raise."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - a CDLL, or what stands in for one
        self._library = library

    def call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401 - whatever C takes
        """Call a function.

        Raises:
            NvmlError: when it fails, or the driver's library does not have it.
        """
        function = getattr(self._library, name, None)
        code = _MISSING_FUNCTION if function is None else int(function(*arguments))
        if code:
            raise NvmlError(name, code)

    def text(self, name: str, *first: Any) -> str:  # noqa: ANN401
        """Return what a function writes into a buffer."""
        buffer = ctypes.create_string_buffer(_TEXT)
        self.call(name, *first, buffer, ctypes.c_uint(_TEXT))
        return buffer.value.decode()

    def numbers(self, name: str, *first: Any, count: int = 1) -> tuple[int, ...]:  # noqa: ANN401
        """Return the integers that a function writes through its last pointers."""
        found = [ctypes.c_int() for _ in range(count)]
        self.call(name, *first, *(ctypes.byref(number) for number in found))
        return tuple(number.value for number in found)

    def numbers_or_none(self, name: str, *first: Any, count: int = 1) -> tuple[int, ...] | None:  # noqa: ANN401
        """Return the integers, None where the GPU or the driver does not have them."""
        try:
            return self.numbers(name, *first, count=count)
        except NvmlError as failed:
            if failed.code in (_INVALID, _NOT_SUPPORTED, _NOT_FOUND, _MISSING_FUNCTION):
                return None
            raise

    def handle(self, name: str, *first: Any) -> ctypes.c_void_p:  # noqa: ANN401
        """Return the handle of a GPU, or of a slice of one."""
        found = ctypes.c_void_p()
        self.call(name, *first, ctypes.byref(found))
        return found

    def memory(self, gpu: ctypes.c_void_p) -> tuple[int, int]:
        """Return all bytes of memory, and those that CUDA never gets."""
        found = Memory(version=versioned(Memory))
        self.call("nvmlDeviceGetMemoryInfo_v2", gpu, ctypes.byref(found))
        return found.total, found.reserved


def read_nvml(library: Any) -> dict[str, Any]:  # noqa: ANN401 - see Nvml
    """Return the driver's version, its CUDA version and every GPU that it shows.

    Raises:
        NvmlError: when the driver does not answer.
    """
    nvml = Nvml(library)
    nvml.call("nvmlInit_v2")
    try:
        (cuda,) = nvml.numbers("nvmlSystemGetCudaDriverVersion_v2")
        (count,) = nvml.numbers("nvmlDeviceGetCount_v2")
        return {
            "version": nvml.text("nvmlSystemGetDriverVersion"),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
            "gpus": [read_gpu(nvml, index) for index in range(count)],
        }
    finally:
        nvml.call("nvmlShutdown")


def read_gpu(nvml: Nvml, index: int) -> dict[str, Any]:
    """Return what is known of one GPU; `index` is nvidia-smi's, by PCI bus."""
    gpu = nvml.handle("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index))
    pci = PciInfo()
    nvml.call("nvmlDeviceGetPciInfo_v3", gpu, ctypes.byref(pci))
    total, reserved = nvml.memory(gpu)
    mig = nvml.numbers_or_none("nvmlDeviceGetMigMode", gpu, count=2)
    ecc = nvml.numbers_or_none("nvmlDeviceGetEccMode", gpu, count=2)
    return {
        "index": index,
        "name": nvml.text("nvmlDeviceGetName", gpu),
        "uuid": nvml.text("nvmlDeviceGetUUID", gpu),
        "bus_id": short_bus_id(pci.bus_id.decode()),
        "device_id": f"{pci.device_id >> 16:04x}",
        "memory": total,
        "reserved": reserved,
        "capability": list(nvml.numbers("nvmlDeviceGetCudaComputeCapability", gpu, count=2)),
        "mig": None if mig is None else bool(mig[0]),
        "slices": read_slices(nvml, gpu) if mig and mig[0] else [],
        "nvlinks": count_links(nvml, gpu),
        "ecc": None if ecc is None else bool(ecc[0]),
        "fabric": read_fabric(nvml, gpu),
    }


def short_bus_id(bus_id: str) -> str:
    """Return a PCI address as sysfs writes it: NVML writes eight digits of domain, the kernel four."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


def read_slices(nvml: Nvml, gpu: ctypes.c_void_p) -> list[dict[str, Any]]:
    """Return the slices (MIG devices) of a GPU: uuid, memory, reserved."""
    (most,) = nvml.numbers_or_none("nvmlDeviceGetMaxMigDeviceCount", gpu) or (0,)
    found = []
    for index in range(most):
        try:
            part = nvml.handle("nvmlDeviceGetMigDeviceHandleByIndex", gpu, ctypes.c_uint(index))
        except NvmlError as failed:
            if failed.code != _NOT_FOUND:
                raise
            continue
        total, reserved = nvml.memory(part)
        found.append({"uuid": nvml.text("nvmlDeviceGetUUID", part), "memory": total, "reserved": reserved})
    return found


def count_links(nvml: Nvml, gpu: ctypes.c_void_p) -> int:
    """Return how many NVLinks of a GPU are up."""
    states = (nvml.numbers_or_none("nvmlDeviceGetNvLinkState", gpu, ctypes.c_uint(link)) for link in range(_LINKS))
    return sum(state == (1,) for state in states)


def read_fabric(nvml: Nvml, gpu: ctypes.c_void_p) -> str | None:
    """Return how far the fabric manager has come with a GPU; None where the driver cannot say."""
    found = FabricInfo(version=versioned(FabricInfo))
    try:
        nvml.call("nvmlDeviceGetGpuFabricInfoV", gpu, ctypes.byref(found))
    except NvmlError as failed:
        if failed.code in (_NOT_SUPPORTED, _MISSING_FUNCTION):
            return None
        raise
    return _FABRIC[found.state] if found.state < len(_FABRIC) else f"state {found.state}"
