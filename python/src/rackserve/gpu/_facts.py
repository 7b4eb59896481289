"""The facts of the module rackserve_gpu_facts, typed and completed by the data of known GPUs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rackserve.gpu._hardware import Capability, Generation, KnownGpu, Modules, hardware

_GB = 1_000_000_000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)  # a newer module may report more


class Slice(_Part):
    """A MIG instance: its identity, and bytes of memory (None where NVML does not give them)."""

    uuid: str
    memory: int | None = None
    reserved: int = 0


class Gpu(_Part):
    """One GPU; fields that need a driver are None without one. Memory is in bytes.

    `unread` is the reason by field that NVML did not give, `problem` why the driver cannot open the GPU,
    `acs_redirect` whether a PCIe bridge above it sends peer traffic to the root, `iommu` the type of its IOMMU group
    (`identity`, `DMA`, `DMA-FQ`; empty without one, None where unread).
    """

    bus_id: str
    device_id: str = ""
    seen_on_bus: bool = True
    kernel_driver: str = ""
    index: int | None = None
    reported_name: str | None = Field(default=None, alias="name")
    uuid: str | None = None
    memory: int | None = None
    reserved: int = 0
    reported_capability: Capability | None = Field(default=None, alias="capability")
    mig: bool | None = None
    slices: tuple[Slice, ...] = ()
    nvlinks: int | None = 0
    ecc: bool | None = None
    fabric: str | None = None
    unread: dict[str, str] = {}
    problem: str | None = None
    acs_redirect: bool | None = None
    iommu: str | None = None

    @property
    def known(self) -> KnownGpu | None:
        """The product's data in `gpus.yml`."""
        return hardware().known(self.device_id)

    @property
    def name(self) -> str:
        """The driver's name of it, else the product's, else its PCI device id."""
        if self.reported_name:
            return self.reported_name.removeprefix("NVIDIA ")
        return self.known.name if self.known else f"a GPU with the PCI id 10de:{self.device_id}"

    @property
    def capability(self) -> Capability | None:
        """Compute capability; None for an unknown GPU without a driver."""
        return self.reported_capability or (self.known.capability if self.known else None)

    @property
    def generation(self) -> Generation | None:
        """Its generation, None where its compute capability is unknown or newer than `gpus.yml`."""
        return hardware().generation_of(self.capability)

    @property
    def cuda_bytes(self) -> int | None:
        """Memory that CUDA gets; without a driver the data sheet's value, which is larger."""
        if self.memory is not None:
            return self.memory - self.reserved
        return self.known.memory * _GB if self.known else None


class Driver(_Part):
    """NVIDIA's driver; `problem` is why it does not respond, `unread` the reason by field that it did not give."""

    version: str | None = None
    cuda: str | None = None
    modules: Modules | None = None
    installed: str | None = None
    problem: str | None = None
    unread: dict[str, str] = {}

    @property
    def answers(self) -> bool:
        """Whether NVML could be initialized; single values may be unknown all the same."""
        return self.problem is None and (self.version or self.cuda) is not None


class FabricManager(_Part):
    """The service that brings NVSwitches up; `state` is systemd's."""

    version: str | None = None
    state: str = ""


class Xid(_Part):
    """An error of a GPU in the kernel's log."""

    bus_id: str
    code: int


class Host(_Part):
    """Properties of the host that driver and GPUs depend on.

    `header_kernels` are those whose headers it has, `reboot` are reasons to wait for one, `memory` is in bytes,
    `missing_nodes` are device nodes that CUDA would open.
    """

    kernel: str
    header_kernels: tuple[str, ...] = ()
    secure_boot: bool | None = None
    nouveau: bool = False
    nvswitches: int = 0
    fabric_manager: FabricManager = FabricManager()
    reboot: tuple[str, ...] = ()
    glibc: str
    nvcc: str | None = None
    memory: int = 0
    xids: tuple[Xid, ...] = ()
    missing_nodes: tuple[str, ...] = ()


class GpuFacts(_Part):
    """All that rackserve_gpu_facts returns."""

    gpus: tuple[Gpu, ...] = ()
    driver: Driver = Driver()
    host: Host

    @classmethod
    def of(cls, facts: dict[str, Any]) -> GpuFacts:
        """Read a module's result."""
        return cls.model_validate(facts)
