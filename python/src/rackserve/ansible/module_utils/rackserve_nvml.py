"""GPU facts from NVIDIA's management library (NVML). Standard library only, Python 3.9 and newer.

The library is called by ctypes and not through nvidia-ml-py: the gate asks before anything of ours is on the host, so a
package would have to travel with every question, and its 7,000 lines wrap the very functions called here. They are
NVML's C interface, which the driver brings itself; `_v2` and the like are part of their names. Structures are laid out
as in nvidia-ml-py 13.610.43, which NVIDIA makes from nvml.h.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARY = "libnvidia-ml.so.1"
DRIVER_NOT_LOADED = 9
VERSION_MISMATCH = 18
_INVALID = 2
_NOT_SUPPORTED = 3
_NOT_FOUND = 6
_MISSING_FUNCTION = 13
_LOST = 15
_RESET_REQUIRED = 16
_OTHER_STRUCTURE = 25
# A GPU without the feature, or a driver from before it, answers so: nothing is wrong.
_LACKS = (_INVALID, _NOT_SUPPORTED, _NOT_FOUND, _MISSING_FUNCTION)
# Nothing else of such a GPU can be read or used: it is reported as one that does not answer.
_GONE = (_LOST, _RESET_REQUIRED)
# nvmlReturn_t of nvml.h; any other is shown by its number.
_MEANINGS = {
    _INVALID: "invalid argument",
    _NOT_SUPPORTED: "not supported",
    4: "no permission",
    _NOT_FOUND: "not found",
    DRIVER_NOT_LOADED: "the driver is not loaded",
    12: "no library",
    _MISSING_FUNCTION: "this driver lacks the function",
    _LOST: "a GPU has fallen off the bus",
    _RESET_REQUIRED: "the GPU needs a reset",
    VERSION_MISMATCH: "the loaded driver and the installed libraries have different versions",
    _OTHER_STRUCTURE: "another version of the structure",
    999: "unknown error",
}
_TEXT = 96
_LINKS = 18
_MOST_GPUS = 64
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


class MemoryBefore(ctypes.Structure):
    """nvmlMemory_t, for drivers and GPUs that do not answer nvmlDeviceGetMemoryInfo_v2."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


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
        return buffer.value.decode(errors="replace")

    def numbers(self, name: str, *first: Any, count: int = 1) -> tuple[int, ...]:  # noqa: ANN401
        """Return the integers that a function writes through its last pointers."""
        found = [ctypes.c_int() for _ in range(count)]
        self.call(name, *first, *(ctypes.byref(number) for number in found))
        return tuple(number.value for number in found)

    def number(self, name: str, *first: Any) -> int:  # noqa: ANN401
        """Return the integer that a function writes through its last pointer."""
        return self.numbers(name, *first)[0]

    def handle(self, name: str, *first: Any) -> ctypes.c_void_p:  # noqa: ANN401
        """Return the handle of a GPU, or of a slice of one."""
        found = ctypes.c_void_p()
        self.call(name, *first, ctypes.byref(found))
        return found

    def memory(self, gpu: ctypes.c_void_p) -> tuple[int, int]:
        """Return all bytes of memory, and those that CUDA never gets (0 where the driver does not tell them apart)."""
        found = Memory(version=versioned(Memory))
        try:
            self.call("nvmlDeviceGetMemoryInfo_v2", gpu, ctypes.byref(found))
        except NvmlError as failed:
            if failed.code in _GONE:
                raise
            before = MemoryBefore()
            self.call("nvmlDeviceGetMemoryInfo", gpu, ctypes.byref(before))
            return before.total, 0
        return found.total, found.reserved


class Fields:
    """Reads values one by one: what cannot be read is None, and `unread` says why."""

    def __init__(self) -> None:
        self.unread: dict[str, str] = {}

    def read(
        self,
        field: str,
        function: Callable[..., Any],
        *arguments: Any,  # noqa: ANN401 - whatever the function takes
        lacks: tuple[int, ...] = (),
        **options: int,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        """Return a value that every GPU has, None where it cannot be read.

        An error with one of the codes `lacks` says that there is no such value, so that nothing is unread.

        Raises:
            NvmlError: when the GPU is lost or needs a reset.
        """
        try:
            return function(*arguments, **options)
        except NvmlError as failed:
            if failed.code in _GONE:
                raise
            if failed.code not in lacks:
                self.unread[field] = str(failed)
        except ValueError as odd:
            self.unread[field] = str(odd)
        return None

    def feature(self, field: str, function: Callable[..., Any], *arguments: Any, **options: int) -> Any:  # noqa: ANN401
        """Return a value of a feature as `read` does, None also where the GPU or the driver does not have it."""
        return self.read(field, function, *arguments, lacks=_LACKS, **options)


def read_nvml(library: Any) -> dict[str, Any]:  # noqa: ANN401 - see Nvml
    """Return the driver's version, its CUDA version and every GPU that it shows.

    A value that cannot be read is None; `unread`, of the driver and of each GPU, is the reason by field. A GPU that the
    driver cannot open, or that is lost, is in `gone` (the reason by index) and not in `gpus`.

    Raises:
        NvmlError: when the driver does not answer at all: NVML cannot be initialized.
    """
    nvml = Nvml(library)
    nvml.call("nvmlInit_v2")
    fields = Fields()
    try:
        cuda = fields.read("cuda", nvml.number, "nvmlSystemGetCudaDriverVersion_v2")
        version = fields.read("version", nvml.text, "nvmlSystemGetDriverVersion")
        count = fields.read("count", nvml.number, "nvmlDeviceGetCount_v2")
        gpus: list[dict[str, Any]] = []
        gone: dict[str, str] = {}
        for index in range(_MOST_GPUS if count is None else count):
            try:
                gpus.append(read_gpu(nvml, index))
            except NvmlError as failed:
                if count is None and failed.code in (_INVALID, _NOT_FOUND):
                    break
                gone[str(index)] = str(failed)
        return {
            "version": version,
            "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
            "gpus": gpus,
            "gone": gone,
            "unread": fields.unread,
        }
    finally:
        with contextlib.suppress(NvmlError):
            nvml.call("nvmlShutdown")


def read_gpu(nvml: Nvml, index: int) -> dict[str, Any]:
    """Return what is known of one GPU; `index` is nvidia-smi's, by PCI bus.

    Raises:
        NvmlError: when it cannot be opened, is lost, or needs a reset.
    """
    gpu = nvml.handle("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index))
    fields = Fields()
    total, reserved = fields.read("memory", nvml.memory, gpu) or (None, 0)
    capability = fields.read("capability", nvml.numbers, "nvmlDeviceGetCudaComputeCapability", gpu, count=2)
    mig = fields.feature("mig", nvml.numbers, "nvmlDeviceGetMigMode", gpu, count=2)
    ecc = fields.feature("ecc", nvml.numbers, "nvmlDeviceGetEccMode", gpu, count=2)
    return {
        **(fields.read("bus_id", read_pci, nvml, gpu) or {}),
        "index": index,
        "name": fields.read("name", nvml.text, "nvmlDeviceGetName", gpu),
        "uuid": fields.read("uuid", nvml.text, "nvmlDeviceGetUUID", gpu),
        "memory": total,
        "reserved": reserved,
        "capability": None if capability is None else list(capability),
        "mig": None if mig is None else bool(mig[0]),
        "slices": read_slices(nvml, gpu, fields) if mig and mig[0] else [],
        "nvlinks": count_links(nvml, gpu, fields),
        "ecc": None if ecc is None else bool(ecc[0]),
        "fabric": fields.feature("fabric", read_fabric, nvml, gpu),
        "unread": fields.unread,
    }


def read_pci(nvml: Nvml, gpu: ctypes.c_void_p) -> dict[str, str]:
    """Return the PCI address of a GPU as sysfs writes it, and its device id."""
    pci = PciInfo()
    nvml.call("nvmlDeviceGetPciInfo_v3", gpu, ctypes.byref(pci))
    return {"bus_id": short_bus_id(pci.bus_id.decode(errors="replace")), "device_id": f"{pci.device_id >> 16:04x}"}


def short_bus_id(bus_id: str) -> str:
    """Return a PCI address as sysfs writes it: NVML writes eight digits of domain, the kernel four."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


def read_slices(nvml: Nvml, gpu: ctypes.c_void_p, fields: Fields) -> list[dict[str, Any]]:
    """Return the slices (MIG devices) of a GPU: uuid, memory (None where unread), reserved."""
    most = fields.feature("slices", nvml.number, "nvmlDeviceGetMaxMigDeviceCount", gpu) or 0
    found = []
    for index in range(most):
        name = f"slice {index}"
        part = fields.feature(name, nvml.handle, "nvmlDeviceGetMigDeviceHandleByIndex", gpu, ctypes.c_uint(index))
        uuid = part and fields.read(f"uuid of {name}", nvml.text, "nvmlDeviceGetUUID", part)
        if not uuid:
            continue  # none there, or one that nothing could name
        total, reserved = fields.read(f"memory of {name}", nvml.memory, part) or (None, 0)
        found.append({"uuid": uuid, "memory": total, "reserved": reserved})
    return found


def count_links(nvml: Nvml, gpu: ctypes.c_void_p, fields: Fields) -> int | None:
    """Return how many NVLinks of a GPU are up; None where a link that may be there cannot be read."""
    states = [
        fields.feature("nvlinks", nvml.number, "nvmlDeviceGetNvLinkState", gpu, ctypes.c_uint(link))
        for link in range(_LINKS)
    ]
    up = states.count(1)
    return None if "nvlinks" in fields.unread and not up else up


def read_fabric(nvml: Nvml, gpu: ctypes.c_void_p) -> str:
    """Return how far the fabric manager has come with a GPU: `completed`, or `failed` where it could not.

    Once a GPU's registration is completed, `status` is its result (nvml.h, nvmlGpuFabricInfo_t).
    """
    found = FabricInfo(version=versioned(FabricInfo))
    nvml.call("nvmlDeviceGetGpuFabricInfoV", gpu, ctypes.byref(found))
    state = _FABRIC[found.state] if found.state < len(_FABRIC) else f"state {found.state}"
    if state == "completed" and found.status:
        return f"failed: {_MEANINGS.get(found.status, f'error {found.status}')}"
    return state
