"""The rows about single instances: whether their GPUs can run them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rackserve.gpu import dotted, find_share, hardware, shares_of
from rackserve.preflight._kv_rows import backend_rows, wheels_cuda
from rackserve.preflight._peer_rows import peer_row
from rackserve.preflight._rows import Row, Verdict, row
from rackserve.servable import quantization_floor
from rackserve.vllm import releases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.gpu import Capability, Gpu, GpuFacts, Share
    from rackserve.vllm import Instance, Release

# dtype_for in vllm/_config.py has the same floor: vLLM's documentation, "GPU: compute capability 7.0 or higher".
_FLOOR: Final = (7, 0)


def instance_rows(
    instance: Instance, facts: GpuFacts, release: Release, *, cached_kernels: bool, stored: str | None = None
) -> list[Row]:
    """Return the rows of one instance.

    Args:
        instance: the instance to serve.
        facts: the host's facts.
        release: which vLLM.
        cached_kernels: whether the locked packages bring FlashInfer's kernels compiled.
        stored: the type of the KV cache that the checkpoint asks for.
    """
    shares = shares_of(instance.gpus, facts.gpus)
    gpus = [share.gpu for share in shares]
    known = [gpu.capability for gpu in gpus if gpu.capability]
    rows = [_named(instance, facts), _slices(shares, release), _mixed(gpus), _capability(gpus, release)]
    rows.append(_cuda_support(gpus, release))
    if known:
        oldest = min(known)
        rows += [_dtype(instance, gpus), _quantization(instance, oldest, release)]
        rows += backend_rows(instance, known, facts, release, cached=cached_kernels, stored=stored)
    rows.append(peer_row(gpus) if _exchanges(instance) else None)
    labelled = (entry for entry in rows if entry)
    return [Row(f"{instance.name}: {r.what}", r.wanted, r.found, r.verdict, r.fix) for r in labelled]


def _exchanges(instance: Instance) -> bool:
    """Return whether the GPUs of one engine exchange data at each step."""
    stages = instance.extra_args.get("pipeline-parallel-size", 1)
    return instance.tensor_parallel > 1 or stages != 1


def _named(instance: Instance, facts: GpuFacts) -> Row:
    if not instance.gpus:
        fix = "set gpus of the instance: without it vLLM sees no GPU"
        return row("gpus", "at least one", "none named", fix, fits=False)
    has = ", ".join(_identity(gpu, position) for position, gpu in enumerate(facts.gpus))
    missing = [wanted for wanted in instance.gpus if find_share(wanted, facts.gpus) is None]
    wanted = ", ".join(map(str, instance.gpus))
    if not missing:
        return row("gpus", wanted, ", ".join(gpu.name for gpu in _gpus(instance, facts)), "", fits=True)
    if not facts.driver.answers and all(isinstance(name, str) and ":" not in name for name in missing):
        return Row("gpus", wanted, "UUIDs are unknown without a driver", Verdict.UNKNOWN)
    found = f"no {', '.join(map(str, missing))}; the host has {has}"
    return row("gpus", wanted, found, "name GPUs that the host has", fits=False)


def _gpus(instance: Instance, facts: GpuFacts) -> list[Gpu]:
    return [share.gpu for share in shares_of(instance.gpus, facts.gpus)]


def _identity(gpu: Gpu, position: int) -> str:
    names = [str(position if gpu.index is None else gpu.index), gpu.bus_id, gpu.uuid, *(s.uuid for s in gpu.slices)]
    return " = ".join(name for name in names if name)


def _slices(shares: Sequence[Share], release: Release) -> Row | None:
    cut = [share.gpu for share in shares if share.gpu.mig and share.slice is None]
    slices = [share for share in shares if share.slice]
    if cut:
        has = ", ".join(s.uuid for gpu in cut for s in gpu.slices) or "none yet"
        fix = f"name a MIG instance in gpus (it has: {has}), or switch MIG off: nvidia-smi -i {cut[0].index} -mig 0"
        return row(
            "MIG", "off, or a MIG instance named", f"on for {cut[0].bus_id}, and the whole GPU named", fix, fits=False
        )
    if slices and len(shares) > 1:
        fix = "set one MIG instance, or whole GPUs: MIG instances cannot exchange data (MIG User Guide, NCCL)"
        return row(
            "MIG", "one MIG instance alone", f"{len(slices)} of {len(shares)} named are MIG instances", fix, fits=False
        )
    if slices and not release.gpus_by_uuid:
        fix = f"set stack_runtime.vllm to 0.26.0 or newer, or name whole GPUs: {release.version} takes no UUIDs"
        return row("MIG", "whole GPUs", "a MIG instance, which has no name but its UUID", fix, fits=False)
    return None


def _mixed(gpus: Sequence[Gpu]) -> Row | None:
    kinds = sorted({gpu.name for gpu in gpus})
    if len(gpus) == 1 or not kinds:
        return None
    fix = "name GPUs of one kind: the smallest one's memory and the oldest one's kernels would rule them all"
    return row("one kind of GPU", "the same for all", ", ".join(kinds), fix, fits=len(kinds) == 1)


def _capability(gpus: Sequence[Gpu], release: Release) -> Row | None:
    """Require a compute capability that vLLM and the wheel's CUDA support."""
    if not gpus:
        return None
    ended = [g for g in hardware().generations if g.cuda.until and g.cuda.until < release.cuda_major]
    newest_ended = max((max(g.capabilities) for g in ended), default=(0, 0))
    still = [c for g in hardware().generations for c in g.capabilities if c > newest_ended]
    floor = max(_FLOOR, min(still))
    unknown = [gpu for gpu in gpus if gpu.capability is None]
    known = sorted({gpu.capability for gpu in gpus if gpu.capability})
    wanted = f"{dotted(floor)} or newer (CUDA {release.cuda_major})"
    if unknown:
        return Row("compute capability", wanted, f"not known of {unknown[0].name}", Verdict.UNKNOWN)
    fix = "serve on a newer GPU" + (", or set stack_runtime.vllm: 0.10.2" if known[0] >= _FLOOR else "")
    return row("compute capability", wanted, ", ".join(map(dotted, known)), fix, fits=known[0] >= floor)


def _cuda_support(gpus: Sequence[Gpu], release: Release) -> Row | None:
    """Require a wheel whose CUDA supports the newest of the GPUs."""
    first = {gpu.generation.cuda.first: gpu.generation.name for gpu in gpus if gpu.generation}
    needed = max((version for version in first if version), default=None)
    if needed is None:
        return None
    able = [r.version for r in releases().values() if wheels_cuda(r) >= needed]
    fix = f"set stack_runtime.vllm to one of {', '.join(able)}"
    wanted = f"CUDA {dotted(needed)} or newer ({first[needed]})"
    found, fits = f"CUDA {release.cuda} of vLLM {release.version}", wheels_cuda(release) >= needed
    return row("wheels", wanted, found, fix, fits=fits)


def _dtype(instance: Instance, gpus: Sequence[Gpu]) -> Row | None:
    generations = [gpu.generation for gpu in gpus if gpu.generation]
    if instance.dtype == "auto" or not generations:
        return None
    lacking = sorted({g.name for g in generations if instance.dtype not in g.dtypes})
    names = ", ".join(sorted({f"{g.name} has {', '.join(g.dtypes)}" for g in generations}))
    fix = "set dtype: float16, or leave it out: auto takes what the GPU has"
    return row("dtype", instance.dtype, names, fix, fits=not lacking)


def _quantization(instance: Instance, oldest: Capability, release: Release) -> Row | None:
    if instance.quantization is None:
        return None
    floor = quantization_floor(release.version, instance.quantization) or _FLOOR
    fix = "serve on a newer GPU, or serve another copy of the model"
    wanted = f"{instance.quantization}: {dotted(floor)} or newer"
    return row("quantization", wanted, dotted(oldest), fix, fits=oldest >= floor)
