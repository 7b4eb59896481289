"""One instance of the inventory against its memory: the sentence that refuses it, or none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve.capacity._arithmetic import arithmetic_of
from rackserve.capacity._config import read_shape
from rackserve.capacity._memory import GIB
from rackserve.capacity._plan import Settings, plan, remedies
from rackserve.capacity._shape import NotComputedError
from rackserve.capacity._weights import weights_of
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rackserve.capacity._plan import Plan, Remedy

_NOT_COMPUTED: Final = frozenset(
    {
        "decode-context-parallel-size",
        "speculative-config",
        "num-gpu-blocks-override",
        "hf-overrides",
        "hf-config-path",
        "model-impl",
        "prefill-context-parallel-size",
        "disable-sliding-window",
        "kv-cache-dtype-skip-layers",
        "kv-transfer-config",
        "kv-offloading-size",
        "attention-config",
        "config-format",
        "model-class-overrides",
        "enable-hc-sp",
        "mamba-block-size",
        "rope-scaling",
        "rope-theta",
        "cpu-offload-gb",
        "offload-group-size",
        "data-parallel-size",
        "quantization-config",
    }
)
_USUAL_BACKENDS: Final = frozenset({"FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "CPU_ATTN"})
_NUMBER: Final = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)")
Extra = bool | int | float | str | list[str] | dict[str, Any]


@dataclass(frozen=True)
class CapacityRequest:
    """What decides an instance's capacity; the fields of `vllm_instances` and of its host.

    Attributes:
        model: the model's folder in the bundle.
        gpu_bytes: one GPU's memory, as torch.cuda.mem_get_info() has it; None on a CPU.
        cpu_kv_bytes: VLLM_CPU_KVCACHE_SPACE in bytes; None on a GPU.
        tensor_parallel: GPUs that share every layer.
        extra_args: flags of `vllm serve` by their long names.
        fp8_kv_cache: whether the GPU stores a KV cache in FP8, so that this can be advised.
    """

    name: str
    model: Path
    release: str
    max_model_len: int
    max_num_seqs: int
    extra_args: Mapping[str, Extra]
    gpu_bytes: int | None = None
    cpu_kv_bytes: int | None = None
    tensor_parallel: int = 1
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    gpu_memory_utilization: float | None = None
    fp8_kv_cache: bool = True


def validate_capacity(wanted: CapacityRequest) -> str | None:
    """Return why an instance cannot hold one request of its max_model_len, and what to set; None when it can.

    A prediction refuses only what would not fit even if it were as wrong as it may be; see docs/reference/capacity.md.
    What cannot be computed is left to vLLM's own check at its start.
    """
    label = f"instance {wanted.name!r}"
    if _NOT_COMPUTED.intersection(wanted.extra_args):
        return None
    try:
        answer = plan_of(wanted)
        room = answer.budget.available + answer.budget.doubt - answer.budget.missing
        if answer.needed <= max(room, answer.budget.available) and answer.budget.missing <= answer.budget.doubt:
            return None
        changes = [_sentence(remedy, cpu=wanted.cpu_kv_bytes is not None) for remedy in remedies(answer)]
    except NotComputedError:
        return None
    except InputError as wrong:
        return f"{label}: {wrong}"
    budget, otherwise = answer.budget, "a smaller model, or take a larger GPU"
    if not answer.shape.kv_layers:
        return (
            f"{label}: the model and its activations need {budget.missing / GIB:.2f} GiB more than it may use "
            f"(predicted); set {', or '.join(changes) or otherwise}"
        )
    found = f"{budget.available / GIB:.2f} GiB" + (" (predicted)" if budget.predicted else "")
    return (
        f"{label}: one request of max_model_len {wanted.max_model_len} needs {answer.needed / GIB:.2f} GiB of KV "
        f"cache, and there are {found}; set {', or '.join(changes) or otherwise}"
    )


def plan_of(wanted: CapacityRequest) -> Plan:
    """Work out an instance's capacity.

    Raises:
        InputError: when the model cannot be read, or a key contradicts it.
    """
    shape = read_shape(wanted.model)
    extra = wanted.extra_args
    backend = str(extra.get("attention-backend") or "").upper()
    if backend and (shape.latent or backend not in _USUAL_BACKENDS):
        raise NotComputedError(f"extra_args.attention-backend is {backend}, which may cut the KV cache otherwise")
    set_bytes = _whole(extra, "kv-cache-memory-bytes")
    settings = Settings(
        max_model_len=wanted.max_model_len,
        max_num_seqs=wanted.max_num_seqs,
        gpu_bytes=wanted.gpu_bytes,
        available_kv=wanted.cpu_kv_bytes if set_bytes is None else set_bytes,
        utilization=wanted.gpu_memory_utilization,
        tensor_parallel=wanted.tensor_parallel,
        pipeline_parallel=_whole(extra, "pipeline-parallel-size") or 1,
        kv_cache_dtype=wanted.kv_cache_dtype or "auto",
        device="cuda" if wanted.cpu_kv_bytes is None else "cpu",
        dtype=wanted.dtype,
        block_size=_whole(extra, "block-size"),
        max_num_batched_tokens=_whole(extra, "max-num-batched-tokens"),
        async_scheduling=_async_scheduling(extra),
        enforce_eager=bool(extra.get("enforce-eager")),
        hybrid=not extra.get("disable-hybrid-kv-cache-manager"),
        fp8_kv_cache=wanted.fp8_kv_cache,
    )
    weights = weights_of(wanted.model, shape, wanted.quantization)
    return plan(shape, weights, arithmetic_of(wanted.release), settings)


def _async_scheduling(extra: Mapping[str, Extra]) -> bool | None:
    if extra.get("no-async-scheduling"):
        return False
    value = extra.get("async-scheduling")
    return value if isinstance(value, bool) else None


def _whole(extra: Mapping[str, Extra], name: str) -> int | None:
    value = extra.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        return _human(name, value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"extra_args.{name} is {value!r}; set a whole number of 1 or more")
    return value


def _human(name: str, value: str) -> int:
    """Read a number as vLLM's parser does: 4k is 4000, 4K is 4096 (engine/arg_utils.py, human_readable_int)."""
    found = _NUMBER.fullmatch(value.strip())
    if found is None or (found[2].isupper() and "." in found[1]):
        raise NotComputedError(f"extra_args.{name} is {value!r}, which is left to vLLM's own parser")
    step = 1024 if found[2].isupper() else 1000
    return int(float(found[1]) * step ** " kmgt".index(found[2].lower() or " "))


def _sentence(remedy: Remedy, *, cpu: bool) -> str:
    keys = {
        "max_model_len": f"max_model_len to {remedy.value} or less",
        "utilization": f"gpu_memory_utilization to {remedy.value}",
        "kv_cache_dtype": f"kv_cache_dtype to {remedy.value}",
        "tensor_parallel": f"gpus to {remedy.value} of them",
    }
    if remedy.setting == "available_kv":
        gib = -(-int(remedy.value) // GIB)
        return f"vllm_cpu_kvcache_gib to {gib}" if cpu else f"extra_args.kv-cache-memory-bytes to {remedy.value}"
    return keys[remedy.setting]
