"""Which of a host's GPUs an instance gets: by index, UUID or PCI address, whichever its `gpus` names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.gpu._facts import Gpu, Slice


@dataclass(frozen=True)
class Share:
    """A GPU of an instance, or one MIG instance of it."""

    gpu: Gpu
    slice: Slice | None = None

    @property
    def cuda_bytes(self) -> int | None:
        """Memory that CUDA gets of it; None when unknown."""
        if self.slice is None:
            return self.gpu.cuda_bytes
        return None if self.slice.memory is None else self.slice.memory - self.slice.reserved

    @property
    def uuid(self) -> str | None:
        """The value for CUDA_VISIBLE_DEVICES; None without a driver."""
        return self.slice.uuid if self.slice else self.gpu.uuid


def find_share(wanted: int | str, gpus: Sequence[Gpu]) -> Share | None:
    """Return the GPU that an item of an instance's `gpus` names, None where the host has no such GPU.

    Without a driver an index counts by PCI address, as nvidia-smi will.
    """
    if isinstance(wanted, int):
        indexes = [position if gpu.index is None else gpu.index for position, gpu in enumerate(gpus)]
        return next((Share(gpu) for gpu, index in zip(gpus, indexes, strict=True) if index == wanted), None)
    sought = stable_name(wanted)
    for gpu in gpus:
        if sought in (gpu.bus_id, stable_name(gpu.uuid or "")):
            return Share(gpu)
        for part in gpu.slices:
            if sought == stable_name(part.uuid):
                return Share(gpu, part)
    return None


def shares_of(wanted: Sequence[int | str], gpus: Sequence[Gpu]) -> list[Share]:
    """Return those of an instance's GPUs that the host has."""
    found = (find_share(entry, gpus) for entry in wanted)
    return [share for share in found if share]


def cuda_bytes_of(wanted: Sequence[int | str], gpus: Sequence[Gpu]) -> int | None:
    """Return the memory that CUDA gets of the smallest of an instance's GPUs; None where one of them is not known."""
    sizes = [share.cuda_bytes for share in shares_of(wanted, gpus) if share.cuda_bytes is not None]
    return min(sizes) if sizes and len(sizes) == len(wanted) else None


def capability_of(wanted: Sequence[int | str], gpus: Sequence[Gpu]) -> tuple[int, int] | None:
    """Return the oldest compute capability of an instance's GPUs; None where one of them is not known."""
    known = [share.gpu.capability for share in shares_of(wanted, gpus) if share.gpu.capability]
    return min(known) if known and len(known) == len(wanted) else None


def stable_name(text: str) -> str:
    """Return a UUID or PCI address as facts have it: lower case, a PCI domain of four digits where that suffices."""
    lowered = text.lower()
    return lowered.removeprefix("0000") if lowered.startswith("00000000:") else lowered


def visible_devices(wanted: Sequence[int | str], gpus: Sequence[Gpu], *, by_uuid: bool) -> list[str]:
    """Return an instance's GPUs as CUDA_VISIBLE_DEVICES takes them; an unknown name is returned unchanged.

    CUDA knows no PCI addresses. An index means another GPU once one has fallen off the bus, so a UUID is better, where
    the release takes it.

    Args:
        wanted: `gpus` of the instance.
        gpus: those of the host.
        by_uuid: whether the release takes UUIDs.
    """
    found = []
    for entry in wanted:
        share = find_share(entry, gpus)
        index = share.gpu.index if share else None
        name = (share.uuid if by_uuid else index) if share else None
        found.append(str(entry if name is None else name))
    return found
