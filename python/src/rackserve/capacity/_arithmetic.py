"""What differs between vLLM releases in how memory becomes tokens; each row was read in that release's source."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from rackserve.capacity._shape import NotComputedError

if TYPE_CHECKING:
    from rackserve.capacity._shape import ModelShape

_LONG_CONTEXT: Final = 32768
_BIG_GPU: Final = 70 << 30
_HUGE_GPU: Final = 160 << 30
_EVERY_MODEL: Final = frozenset({"dense", "experts"})


class Grouping(Enum):
    """How layers of different attention types become groups that share one pool of blocks."""

    NONE = "every layer keeps every token"
    SMALLEST = "groups as large as the rarest attention type"
    BALANCED = "as SMALLEST, or as large as the commonest type when that is under 1.5 times the rarest"


class Admission(Enum):
    """What the engine compares before it starts, to be sure of one request of max_model_len."""

    POOL_TOKENS = "tokens of the pool"
    LAYER_BYTES = "bytes of the layers, without padding of groups"
    GROUP_BYTES = "bytes of the groups"
    GROUP_BYTES_AND_NULL_BLOCK = "bytes of the groups, beside the one block that the pool never hands out"


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic of one vLLM release.

    Attributes:
        version: as PyPI has it.
        grouping: how layers are grouped.
        admission: what must fit before the engine starts.
        tokens_by_concurrency: the logged size is concurrency x max_model_len; before, blocks x block size.
        counts_batches_in_flight: a sliding window is sized for every batch in flight, not for one.
        chunked_is_local: chunked attention (Llama 4) drops old tokens by default; else it keeps them all.
        kv_dtype_from_model: `auto` follows the KV type in a ModelOpt checkpoint.
        cpu_block_size: tokens per block on a CPU.
        cpu_mla_block_size: the same for multi-head latent attention, on a CPU without AMX.
        uncounted_graphs: models whose CUDA graphs take their memory on top of the KV cache's instead of before it:
            `dense`, `experts`, or a type. From 0.22.1 on the second model runner's, until that one estimates them too
            (v1/worker/gpu/model_runner.py, profile_cudagraph_memory; config/vllm.py, use_v2_model_runner).
        tries_kernels: kernels are timed while the model is compiled (config/compilation.py, benchmark_combo_kernel).
        batch_grows_at_160_gib: --max-num-batched-tokens is 16384 on a GPU that large.
        yarn_scales: the longest request is YaRN's original length x factor; else max_position_embeddings has it in it.
        window_grows: a window that does not count the token itself is one larger (models/commandr.py).
        loads_bitsandbytes: checkpoints of bitsandbytes are read; from 0.28.0 on a plugin does that.
        capped_by_requests: the default of --max-num-batched-tokens is at most max_num_seqs x max_model_len.
    """

    version: str
    grouping: Grouping
    admission: Admission
    tokens_by_concurrency: bool
    counts_batches_in_flight: bool
    chunked_is_local: bool
    kv_dtype_from_model: bool
    cpu_block_size: int
    cpu_mla_block_size: int
    uncounted_graphs: frozenset[str]
    tries_kernels: bool
    batch_grows_at_160_gib: bool
    yarn_scales: bool
    window_grows: bool
    loads_bitsandbytes: bool
    capped_by_requests: bool

    def counts_graphs(self, shape: ModelShape) -> bool:
        """Whether the KV cache makes room for this model's CUDA graphs."""
        return not self.uncounted_graphs & {shape.model_type, "experts" if shape.experts else "dense"}

    def default_batched_tokens(self, *, gpu_bytes: int | None, tensor_parallel: int, requests: int, length: int) -> int:
        """Return what `vllm serve` takes for --max-num-batched-tokens (engine/arg_utils.py, get_batch_defaults).

        An A100 of 80 GB is the exception that its size does not show: it gets 2048.

        Args:
            gpu_bytes: the GPU's memory; None on a CPU.
            tensor_parallel: GPUs, or CPU sockets, per instance.
            requests: --max-num-seqs.
            length: --max-model-len.
        """
        if self.version == "0.6.4.post1":
            # Long contexts are prefilled in chunks of 512 (engine/arg_utils.py:995-1020), unless the model has windows.
            return 512 if length > _LONG_CONTEXT and gpu_bytes is not None else max(length, 2048)
        if gpu_bytes is None:
            tokens = 2048 * tensor_parallel
        elif gpu_bytes >= _HUGE_GPU and self.batch_grows_at_160_gib:
            tokens = 16384
        else:
            tokens = 8192 if gpu_bytes >= _BIG_GPU else 2048
        return min(tokens, requests * length) if self.capped_by_requests else tokens


def _hybrid(
    version: str,
    *,
    in_flight: bool = True,
    admission: Admission = Admission.GROUP_BYTES,
    grown: bool = False,
    uncounted_graphs: frozenset[str] = frozenset(),
) -> Arithmetic:
    return Arithmetic(
        version=version,
        grouping=Grouping.BALANCED,
        admission=admission,
        tokens_by_concurrency=True,
        counts_batches_in_flight=in_flight,
        chunked_is_local=True,
        kv_dtype_from_model=True,
        cpu_block_size=128,
        cpu_mla_block_size=16 if grown else 128,
        uncounted_graphs=uncounted_graphs,
        tries_kernels=True,
        batch_grows_at_160_gib=grown,
        yarn_scales=not grown,
        window_grows=grown,
        loads_bitsandbytes=not grown,
        capped_by_requests=True,
    )


_OLDEST: Final = Arithmetic(
    version="0.6.4.post1",
    grouping=Grouping.NONE,
    admission=Admission.POOL_TOKENS,
    tokens_by_concurrency=False,
    counts_batches_in_flight=False,
    chunked_is_local=False,
    kv_dtype_from_model=False,
    cpu_block_size=16,
    cpu_mla_block_size=16,
    uncounted_graphs=_EVERY_MODEL,
    tries_kernels=False,
    batch_grows_at_160_gib=False,
    yarn_scales=True,
    window_grows=False,
    loads_bitsandbytes=True,
    capped_by_requests=False,
)
_FIRST_HYBRID: Final = Arithmetic(
    version="0.10.2",
    grouping=Grouping.SMALLEST,
    admission=Admission.LAYER_BYTES,
    tokens_by_concurrency=False,
    counts_batches_in_flight=False,
    chunked_is_local=False,
    kv_dtype_from_model=False,
    cpu_block_size=16,
    cpu_mla_block_size=16,
    uncounted_graphs=_EVERY_MODEL,
    tries_kernels=False,
    batch_grows_at_160_gib=False,
    yarn_scales=True,
    window_grows=False,
    loads_bitsandbytes=True,
    capped_by_requests=False,
)
_KNOWN: Final = {
    release.version: release
    for release in (
        _OLDEST,
        _FIRST_HYBRID,
        _hybrid("0.22.1", in_flight=False, uncounted_graphs=frozenset({"qwen3"})),
        _hybrid("0.26.0", uncounted_graphs=frozenset({"dense", "deepseek_v2", "granitemoe", "qwen2_moe"})),
        _hybrid("0.31.0", admission=Admission.GROUP_BYTES_AND_NULL_BLOCK, grown=True),
        _hybrid("0.32.0", admission=Admission.GROUP_BYTES_AND_NULL_BLOCK, grown=True),
        _hybrid("0.33.0", admission=Admission.GROUP_BYTES_AND_NULL_BLOCK, grown=True),
    )
}
DEFAULT_RELEASE: Final = "0.32.0"


def arithmetic_of(version: str) -> Arithmetic:
    """Return the arithmetic of a release.

    Raises:
        NotComputedError: when it is none of those whose source was read.
    """
    if version not in _KNOWN:
        raise NotComputedError(f"the KV arithmetic of vLLM {version} is not known; set one of {', '.join(_KNOWN)}")
    return _KNOWN[version]
