"""GPUs: the facts of a host, the data of known products, and the selection for an instance."""

from rackserve.gpu._facts import Gpu, GpuFacts
from rackserve.gpu._hardware import Backend, Capability, Generation, Hardware, KnownGpu, Modules, dotted, hardware
from rackserve.gpu._select import (
    Share,
    capability_of,
    cuda_bytes_of,
    find_share,
    shares_of,
    stable_name,
    visible_devices,
)

__all__ = [
    "Backend",
    "Capability",
    "Generation",
    "Gpu",
    "GpuFacts",
    "Hardware",
    "KnownGpu",
    "Modules",
    "Share",
    "capability_of",
    "cuda_bytes_of",
    "dotted",
    "find_share",
    "hardware",
    "shares_of",
    "stable_name",
    "visible_devices",
]
