"""What a GPU is: what a host reported of its own, what is known of the product, and which one an instance gets."""

from rackserve.gpu._facts import Gpu, GpuFacts
from rackserve.gpu._hardware import Capability, Generation, Hardware, KnownGpu, Modules, dotted, hardware
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
