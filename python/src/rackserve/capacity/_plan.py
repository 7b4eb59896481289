"""The capacity plan: whether a model, on this memory and with these settings, holds one full-length request."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rackserve.capacity import _memory
from rackserve.capacity._kv import capacity_of, kv_dtype_bytes, layout_of
from rackserve.capacity._shape import DTYPE_BYTES, NotComputedError
from rackserve.errors import InputError
from rackserve.vllm import release_of

if TYPE_CHECKING:
    from rackserve.capacity._arithmetic import Arithmetic
    from rackserve.capacity._kv import KvCapacity, KvLayout
    from rackserve.capacity._memory import Budget
    from rackserve.capacity._shape import ModelShape
    from rackserve.capacity._weights import Weights

_MOST_PERCENT: Final = 95
_NO_LIMIT: Final = 1 << 31


@dataclass(frozen=True)
class Settings:
    """The settings of an instance; names follow vLLM's flags.

    Attributes:
        gpu_bytes: one GPU's memory; None on a CPU, or when `available_kv` is given.
        available_kv: bytes for the KV cache, per GPU; None to predict them.
        utilization: None for the release's default.
        fp8_kv_cache: whether the GPU stores a KV cache in FP8.
    """

    max_model_len: int
    max_num_seqs: int
    gpu_bytes: int | None = None
    available_kv: int | None = None
    utilization: float | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    kv_cache_dtype: str = "auto"
    device: str = "cuda"
    dtype: str = "auto"
    block_size: int | None = None
    max_num_batched_tokens: int | None = None
    async_scheduling: bool | None = None
    enforce_eager: bool = False
    hybrid: bool = True
    fp8_kv_cache: bool = True


@dataclass(frozen=True)
class Remedy:
    """One setting, by its name in Settings, and the value with which the instance starts; bytes for `available_kv`."""

    setting: str
    value: str


@dataclass(frozen=True)
class Plan:
    """The answer.

    Attributes:
        fits: whether the engine starts: the weights and one request of max_model_len fit.
        longest: the largest max_model_len with which it starts; 0 when there is none.
        needed: bytes of KV cache without which it does not.
    """

    shape: ModelShape
    release: Arithmetic
    settings: Settings
    utilization: float
    batched_tokens: int
    weights: Weights
    budget: Budget
    layout: KvLayout
    capacity: KvCapacity
    fits: bool
    longest: int
    needed: int

    @property
    def short(self) -> int:
        """Bytes of KV cache that are missing per GPU, as far as known."""
        return max(0, self.needed - self.budget.available + self.budget.missing)


def plan(shape: ModelShape, weights: Weights, release: Arithmetic, settings: Settings) -> Plan:
    """Compute whether an instance starts, and its capacity.

    Raises:
        InputError: when settings contradict the model or each other.
    """
    if settings.dtype != "auto":
        shape = replace(shape, dtype=settings.dtype)
    if shape.quantization and shape.quantization.method == "bitsandbytes" and not release.loads_bitsandbytes:
        raise NotComputedError(f"quantization bitsandbytes: vLLM {release.version} itself does not load it")
    _refuse_contradictions(shape, release, settings)
    utilization = settings.utilization or release_of(release.version).gpu_memory_utilization
    batched = settings.max_num_batched_tokens or release.default_batched_tokens(
        gpu_bytes=None if settings.device == "cpu" else settings.gpu_bytes or 0,
        tensor_parallel=settings.tensor_parallel,
        requests=settings.max_num_seqs,
        length=settings.max_model_len,
    )
    layout = layout_of(
        shape,
        release,
        device=settings.device,
        tensor_parallel=settings.tensor_parallel,
        kv_dtype=settings.kv_cache_dtype,
        batched_tokens=batched,
        block_size=settings.block_size,
        overlapping=settings.async_scheduling,
        hybrid=settings.hybrid,
        pipeline_parallel=settings.pipeline_parallel,
    )
    budget = _budget(shape, weights, release, settings, utilization=utilization, batched=batched)
    needed = layout.needed_bytes(settings.max_model_len)
    return Plan(
        shape=shape,
        release=release,
        settings=settings,
        utilization=utilization,
        batched_tokens=batched,
        weights=weights,
        budget=budget,
        layout=layout,
        capacity=capacity_of(layout, budget.available, settings.max_model_len),
        fits=needed <= budget.available and not budget.missing,
        longest=layout.longest(budget.available, longest_request(shape, release) or _NO_LIMIT),
        needed=needed,
    )


def longest_request(shape: ModelShape, release: Arithmetic) -> int | None:
    """Return the largest max_model_len that vLLM accepts of a model; None when no limit is known."""
    return shape.lengths.longest(yarn_scales=release.yarn_scales)


def remedies(refused: Plan) -> list[Remedy]:
    """Return changes of one setting each with which the instance starts; the least intrusive first."""
    found = [Remedy("max_model_len", str(refused.longest))] if refused.longest and refused.needed else []
    found += [remedy for options in _options(refused) if (remedy := _working(refused, options))]
    if refused.settings.available_kv is not None:
        found.append(Remedy("available_kv", str(refused.needed)))
    return found


def _divides(shape: ModelShape, gpus: int) -> bool:
    """Whether vLLM shares the heads out to so many GPUs.

    Sources, in vLLM 0.32.0: config/model.py, verify_with_parallel_config; model_executor/layers/linear.py,
    QKVParallelLinear, which gives each GPU whole KV heads, or each KV head to as many GPUs.
    """
    latent_or_none = shape.latent is not None or not shape.kv_layers
    whole = shape.kv_heads % gpus == 0 or gpus % shape.kv_heads == 0
    return shape.heads % gpus == 0 and (latent_or_none or whole)


def _options(refused: Plan) -> list[list[tuple[Remedy, Settings]]]:
    """Return what can be tried, one list per setting, each from its smallest change to its largest."""
    settings, shape = refused.settings, refused.shape
    options = []
    if settings.available_kv is None:
        shares = [percent / 100 for percent in range(math.floor(refused.utilization * 100) + 1, _MOST_PERCENT + 1)]
        options.append([(Remedy("utilization", f"{x:.2f}"), replace(settings, utilization=x)) for x in shares])
    if settings.device == "cuda":
        if settings.fp8_kv_cache and kv_dtype_bytes(shape, refused.release, settings.kv_cache_dtype) > 1:
            options.append([(Remedy("kv_cache_dtype", "fp8"), replace(settings, kv_cache_dtype="fp8"))])
        more = [n for n in (2, 4, 8, 16) if n > settings.tensor_parallel and _divides(shape, n)]
        options.append([(Remedy("tensor_parallel", str(n)), replace(settings, tensor_parallel=n)) for n in more])
    return options


def _working(refused: Plan, options: list[tuple[Remedy, Settings]]) -> Remedy | None:
    for remedy, settings in options:
        if plan(refused.shape, refused.weights, refused.release, settings).fits:
            return remedy
    return None


def _budget(
    shape: ModelShape, weights: Weights, release: Arithmetic, settings: Settings, *, utilization: float, batched: int
) -> Budget:
    if settings.available_kv is not None:
        return _memory.given(settings.available_kv, weights, tensor_parallel=settings.tensor_parallel)
    if settings.pipeline_parallel > 1:
        raise NotComputedError("pipeline_parallel: the memory of each GPU is not predicted; set kv-cache-memory-bytes")
    if settings.gpu_bytes is None:
        raise InputError(
            "neither the GPU's memory nor that of the KV cache is known; set --gpu-memory or --available-kv"
        )
    return _memory.predict(
        shape,
        weights,
        release,
        gpu_bytes=settings.gpu_bytes,
        utilization=utilization,
        tensor_parallel=settings.tensor_parallel,
        batched_tokens=batched,
        requests=settings.max_num_seqs,
        graphs=not settings.enforce_eager,
    )


def _refuse_contradictions(shape: ModelShape, release: Arithmetic, settings: Settings) -> None:
    longest, gpus = longest_request(shape, release), settings.tensor_parallel
    if longest is not None and settings.max_model_len > longest:
        raise InputError(
            f"max_model_len {settings.max_model_len} is longer than the model's {longest} in vLLM {release.version}; "
            f"set {longest} or less"
        )
    if not _divides(shape, gpus):
        heads = f"{shape.heads} attention heads"
        if shape.heads % gpus == 0:
            heads = f"{shape.kv_heads} KV heads, nor they it"
        raise InputError(
            f"tensor_parallel {gpus} does not divide the model's {heads}; "
            f"set one of {', '.join(str(n) for n in range(1, 17) if _divides(shape, n))}"
        )
    if settings.device == "cpu" and settings.available_kv is None:
        raise InputError(
            "a CPU's KV cache has a set size; give --available-kv, in GiB, as VLLM_CPU_KVCACHE_SPACE has it"
        )
    if shape.dtype not in DTYPE_BYTES:
        raise InputError(f"dtype {shape.dtype!r} is not known; set auto, {', '.join(DTYPE_BYTES)}")
