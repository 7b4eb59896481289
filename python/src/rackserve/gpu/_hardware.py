"""NVIDIA's GPUs, typed: the reader of `data/gpus.yml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BeforeValidator, Field

from rackserve._schema import Converting

_DATA: Final = Path(__file__).parents[1] / "data" / "gpus.yml"
Capability = tuple[int, int]
Modules = Literal["open", "proprietary"]


def _split(text: str) -> Capability:
    major, minor = text.split(".")
    return int(major), int(minor)


Dotted = Annotated[Capability, BeforeValidator(_split)]


class Branches(Converting):
    """Branches of the driver, such as 580; None is no limit."""

    first: int | None = Field(default=None, alias="from")
    until: int | None = None


class Cuda(Converting):
    """The first release of CUDA that makes code for a generation, and the last major one; None is no limit."""

    first: Dotted | None = Field(default=None, alias="from")
    until: int | None = None


class Generation(Converting):
    """GPUs of one architecture.

    Attributes:
        modules: flavours of kernel modules that drive it.
        fp8: whether it computes in FP8; others unpack such weights first.
    """

    name: str
    capabilities: tuple[Dotted, ...] = Field(min_length=1)
    modules: tuple[Modules, ...] = Field(min_length=1)
    driver: Branches = Branches()
    cuda: Cuda = Cuda()
    dtypes: tuple[Literal["bfloat16", "float16", "float32"], ...] = Field(min_length=1)
    fp8: bool = False
    source: str


class KnownGpu(Converting):
    """One product by its PCI device id.

    Attributes:
        memory: of the data sheet, in GB; CUDA gets less.
        nvswitch: `hidden` for one that sits beside NVSwitches that the PCI bus does not show.
    """

    id: str = Field(pattern=r"^[0-9a-f]{4}$")
    name: str
    capability: Dotted
    memory: int = Field(gt=0)
    nvswitch: Literal["hidden"] | None = None
    source: str


class Capabilities(Converting):
    """A range of compute capabilities, from the first to below the last."""

    first: Dotted = Field(default=(0, 0), alias="from")
    below: Dotted | None = None

    def has(self, capability: Capability) -> bool:
        """Return whether a capability is in the range."""
        return self.first <= capability and (self.below is None or capability < self.below)

    def describe(self) -> str:
        """Describe the range."""
        upper = f" to below {dotted(self.below)}" if self.below else " or newer"
        return f"{dotted(self.first)}{upper}"


class KvCache(Converting):
    """Types of the KV cache that a backend stores, on which GPUs, and since which release of vLLM."""

    types: tuple[str, ...] = Field(min_length=1)
    capabilities: Capabilities = Capabilities()
    since: str = "0.22.1"


class Backend(Converting):
    """An attention backend of vLLM; `compiles`: its kernels are built on the host."""

    capabilities: Capabilities = Capabilities()
    compiles: bool = False
    kv_cache: tuple[KvCache, ...] = ()
    source: str


class DriverKernels(Converting):
    """On which kernels a version of the driver is known to build, and from which one on it is known not to."""

    driver: str = Field(pattern=r"^\d+(\.\d+)+$")
    builds: Dotted | None = None
    fails: Dotted | None = None
    source: str

    @property
    def version(self) -> tuple[int, ...]:
        """The driver's version, for comparison."""
        return tuple(map(int, self.driver.split(".")))


class Hardware(Converting):
    """All of `gpus.yml`."""

    generations: tuple[Generation, ...]
    gpus: tuple[KnownGpu, ...]
    attention_backends: dict[str, Backend]
    compilers: dict[str, Dotted]
    open_modules_only: int
    driver_kernels: tuple[DriverKernels, ...]

    def generation_of(self, capability: Capability | None) -> Generation | None:
        """Return the generation of a compute capability; None when it is not listed."""
        return next((g for g in self.generations if capability in g.capabilities), None)

    def known(self, device_id: str) -> KnownGpu | None:
        """Return the product of a PCI device id; None when it is not listed."""
        return next((gpu for gpu in self.gpus if gpu.id == device_id), None)

    def kernels_of(self, driver: str) -> tuple[DriverKernels | None, DriverKernels | None]:
        """Return what is known of the newest kernel that a driver builds on, and of the oldest that it does not.

        A driver builds on what an earlier one of its branch does, and fails where a later one of its branch fails.
        """
        version = tuple(int(part) for part in driver.split(".") if part.isdigit())
        same = [row for row in self.driver_kernels if row.version[:1] == version[:1]]
        builds = [row for row in same if row.builds and row.version <= version]
        fails = [row for row in same if row.fails and row.version >= version]
        return (
            max(builds, key=lambda row: row.builds or (0, 0), default=None),
            min(fails, key=lambda row: row.fails or (0, 0), default=None),
        )


def dotted(capability: Capability) -> str:
    """Write a compute capability as NVIDIA does."""
    return f"{capability[0]}.{capability[1]}"


@cache
def hardware() -> Hardware:
    """Return the data of known GPUs."""
    return Hardware.model_validate(yaml.safe_load(_DATA.read_text(encoding="utf-8")))
