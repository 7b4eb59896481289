"""The row about the way between the GPUs of one instance where they have no NVLink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rackserve.preflight._rows import Row, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.gpu import Gpu

_FIX: Final = (
    "boot with iommu=pt and switch ACS off in the firmware (or with setpci) for the bridges above these GPUs; "
    "if NCCL then still hangs, set Environment=NCCL_P2P_DISABLE=1 in a drop-in of the instance's unit"
)
_TRANSLATES: Final = ("DMA", "DMA-FQ")


def peer_row(gpus: Sequence[Gpu]) -> Row | None:
    """Warn where GPUs that exchange data over PCIe may hang: ACS redirects it, or the IOMMU translates it.

    NCCL's user guide, "Troubleshooting", "PCI Access Control Services (ACS)"; vllm-project/vllm#51513. None for one
    GPU, for GPUs with NVLink, and without a driver, which alone tells of NVLink.

    Args:
        gpus: those of one instance.
    """
    answering = [gpu for gpu in gpus if gpu.index is not None]
    if len(gpus) < 2 or len(answering) < len(gpus) or all(gpu.nvlinks for gpu in gpus):  # noqa: PLR2004 - a pair
        return None
    wanted = f"no ACS redirect, IOMMU off or in pass-through ({len(gpus)} GPUs without NVLink)"
    redirected = [gpu.bus_id for gpu in gpus if gpu.acs_redirect]
    translated = [gpu.bus_id for gpu in gpus if gpu.iommu in _TRANSLATES]
    found = [f"ACS redirects {', '.join(redirected)}"] if redirected else []
    found += [f"the IOMMU translates {', '.join(translated)}"] if translated else []
    if found:
        unsure = any(gpu.nvlinks is None for gpu in gpus)
        return Row("GPU to GPU", wanted, "; ".join(found), Verdict.UNKNOWN if unsure else Verdict.WARNING, _FIX)
    if any(gpu.acs_redirect is None or gpu.iommu is None for gpu in gpus):
        return Row("GPU to GPU", wanted, "not known", Verdict.UNKNOWN, _FIX)
    return Row("GPU to GPU", wanted, "as wanted", Verdict.FITS)
