"""From bytes for the KV cache to blocks, tokens and requests: the arithmetic of vLLM itself.

Sources, in vLLM 0.32.0: bytes per block `v1/kv_cache_interface.py:511-600`, blocks of a sliding window `:850-905`; in
`v1/core/kv_cache_utils.py` groups `:1362-1500`, concurrency `:1195-1227`, tokens `:2300-2308`, refusals `:2627-2648`.
0.10.2: `v1/core/kv_cache_utils.py:751-1032`. 0.6.4.post1: `worker/cache_engine.py:101-119`, `worker/worker.py:486-503`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rackserve.capacity._arithmetic import Admission, Grouping
from rackserve.capacity._shape import Attention, NotComputedError

if TYPE_CHECKING:
    from rackserve.capacity._arithmetic import Arithmetic
    from rackserve.capacity._shape import ModelShape

KV_DTYPES: Final = ("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2")
_CUDA_BLOCK: Final = 16
_LATENT_CUDA_BLOCK: Final = 64
_PADDING_LIMIT: Final = 1.5
_OLD_LATENT_HEAD: Final = 256
_UNREAD_IN_THE_OLDEST: Final = frozenset({"minicpm3"})


@dataclass(frozen=True)
class KvLayout:
    """How a model's KV cache is cut into blocks.

    Attributes:
        page_bytes: one layer's part of one block.
        groups: attention of each group of layers; a request takes blocks in every group. An encoder has none.
        group_layers: layers, or padding, that share one block.
        unpadded: attention of every layer with a KV cache of its own.
        window: tokens that a sliding or chunked layer looks back.
        in_flight: tokens that may be under way beside them.
    """

    release: Arithmetic
    block_size: int
    page_bytes: int
    groups: tuple[Attention, ...]
    group_layers: int
    unpadded: tuple[Attention, ...]
    window: int
    in_flight: int

    @property
    def block_bytes(self) -> int:
        """Bytes that one block takes from the pool."""
        return self.page_bytes * self.group_layers

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token while every layer still needs it."""
        return self.page_bytes * len(self.unpadded) // self.block_size

    def blocks_per_request(self, length: int) -> int:
        """Return the blocks of one request of that many tokens."""
        return sum(self._blocks(attention, length) for attention in self.groups)

    def needed_bytes(self, length: int) -> int:
        """Return the KV memory without which the engine refuses to start with that max_model_len."""
        if self.release.admission is Admission.LAYER_BYTES:
            return self.page_bytes * sum(self._blocks(attention, length) for attention in self.unpadded)
        if not self.groups:
            return 0
        spare = int(self.release.admission is Admission.GROUP_BYTES_AND_NULL_BLOCK)
        return self.block_bytes * (self.blocks_per_request(length) + spare)

    def longest(self, available: int, limit: int) -> int:
        """Return the largest max_model_len up to the limit with which the engine starts; 0 when there is none."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.needed_bytes(middle) <= available else (low, middle - 1)
        return low

    def _blocks(self, attention: Attention, length: int) -> int:
        if attention is Attention.SLIDING:
            return _ceil(min(self.window - 1 + self.in_flight, length), self.block_size) + 1
        if attention is Attention.CHUNKED:
            return _ceil(min(self.window + self.in_flight, length), self.block_size)
        return _ceil(length, self.block_size)


@dataclass(frozen=True)
class KvCapacity:
    """What the engine logs when it starts; all 0 for an encoder, which has no KV cache and logs nothing."""

    num_blocks: int
    tokens: int
    max_concurrency: float


def layout_of(
    shape: ModelShape,
    release: Arithmetic,
    *,
    device: str,
    tensor_parallel: int = 1,
    kv_dtype: str = "auto",
    batched_tokens: int,
    block_size: int | None = None,
    overlapping: bool | None = None,
    hybrid: bool = True,
    pipeline_parallel: int = 1,
) -> KvLayout:
    """Return how vLLM cuts the KV cache.

    Args:
        shape: the model.
        release: whose arithmetic.
        device: `cuda` or `cpu`.
        tensor_parallel: GPUs that share the model.
        kv_dtype: --kv-cache-dtype.
        batched_tokens: --max-num-batched-tokens.
        block_size: --block-size; None for the backend's own (64 for FlashMLA; Cutlass MLA takes 128).
        overlapping: --async-scheduling; None for its default, which is on for GPUs.
        hybrid: False for --disable-hybrid-kv-cache-manager.
        pipeline_parallel: GPUs that share out the layers; the GPU with the most of them decides.

    Raises:
        NotComputedError: when the KV type, or the split of such layers, is not one of those computed here.
    """
    size = block_size or _default_block(shape, release, device)
    overlaps = device == "cuda" if overlapping is None else overlapping
    kinds = _effective_layers(shape, release, hybrid=hybrid)
    if release.grouping is Grouping.NONE and (not kinds or shape.model_type in _UNREAD_IN_THE_OLDEST):
        raise NotComputedError(f"model_type {shape.model_type!r}: its KV cache in vLLM {release.version} is not known")
    groups, per_group = _groups(kinds, release.grouping)
    if pipeline_parallel > 1:
        per_group = _most_layers(kinds, release, pipeline_parallel)
    return KvLayout(
        release=release,
        block_size=size,
        page_bytes=size * _elements(shape, release, tensor_parallel) * kv_dtype_bytes(shape, release, kv_dtype),
        groups=groups,
        group_layers=per_group,
        unpadded=kinds if pipeline_parallel == 1 else kinds[:per_group],
        window=shape.window + int(shape.window_with_itself and release.window_grows),
        in_flight=batched_tokens * (2 if overlaps and release.counts_batches_in_flight else 1),
    )


def capacity_of(layout: KvLayout, available: int, length: int) -> KvCapacity:
    """Return blocks, tokens and concurrency of a KV cache of that many bytes, for requests of `length` tokens."""
    if not layout.groups:
        return KvCapacity(0, 0, 0.0)
    blocks = max(0, available // layout.block_bytes)
    concurrency = blocks / layout.blocks_per_request(length)
    if layout.release.grouping is Grouping.NONE:
        tokens, concurrency = blocks * layout.block_size, blocks * layout.block_size / length
    elif layout.release.tokens_by_concurrency:
        tokens = int(concurrency * length)
    else:
        tokens = blocks // len(layout.groups) * layout.block_size
    return KvCapacity(blocks, tokens, concurrency)


def kv_dtype_bytes(shape: ModelShape, release: Arithmetic, kv_dtype: str) -> int:
    """Return the bytes of one number in the KV cache.

    Raises:
        NotComputedError: when the type is not one of those computed here.
    """
    if kv_dtype == "auto":
        asked = shape.quantization.kv_dtype if shape.quantization and release.kv_dtype_from_model else ""
        kv_dtype = asked or shape.dtype
    if kv_dtype in ("bfloat16", "float16", "float32"):
        return 4 if kv_dtype == "float32" else 2
    if kv_dtype not in KV_DTYPES:
        raise NotComputedError(f"kv_cache_dtype {kv_dtype!r} is not computed here; set one of {', '.join(KV_DTYPES)}")
    return 1


def _default_block(shape: ModelShape, release: Arithmetic, device: str) -> int:
    latent = shape.latent is not None and release.grouping is not Grouping.NONE
    if device == "cpu":
        return release.cpu_mla_block_size if latent else release.cpu_block_size
    return _LATENT_CUDA_BLOCK if latent else _CUDA_BLOCK


def _elements(shape: ModelShape, release: Arithmetic, tensor_parallel: int) -> int:
    """Numbers per token and layer on one GPU; heads are replicated once there are more GPUs than heads."""
    heads = max(1, shape.kv_heads // tensor_parallel)
    if shape.latent is None:
        return 2 * heads * shape.head_size
    if release.grouping is Grouping.NONE:  # before MLA was known, DeepSeek V2 kept padded keys and values
        return 2 * heads * _OLD_LATENT_HEAD
    return shape.latent.kv_lora_rank + shape.latent.rope_dim


def _effective_layers(shape: ModelShape, release: Arithmetic, *, hybrid: bool) -> tuple[Attention, ...]:
    kinds = shape.kv_layers
    if release.grouping is Grouping.NONE:
        return (Attention.FULL,) * len(kinds)
    unified = not hybrid or (Attention.CHUNKED in kinds and not release.chunked_is_local)
    return (Attention.FULL,) * len(kinds) if unified and Attention.FULL in kinds else kinds


def _groups(kinds: tuple[Attention, ...], grouping: Grouping) -> tuple[tuple[Attention, ...], int]:
    counts = Counter(kinds)
    if not counts:
        return (), 0
    fewest, most = min(counts.values()), max(counts.values())
    size = most if grouping is Grouping.BALANCED and most < _PADDING_LIMIT * fewest else fewest
    return tuple(kind for kind, count in counts.items() for _ in range(_ceil(count, size))), size


def _most_layers(kinds: tuple[Attention, ...], release: Arithmetic, gpus: int) -> int:
    """Return the layers of the GPU with the most (distributed/utils.py, get_pp_indices).

    The last GPU has the rest in 0.6.4.post1; since then it is shared out.
    """
    if set(kinds) - {Attention.FULL}:
        raise NotComputedError("pipeline_parallel: the split of layers with windows is not computed here")
    if release.grouping is Grouping.NONE:
        return len(kinds) // gpus + len(kinds) % gpus
    return _ceil(len(kinds), gpus)


def _ceil(value: int, step: int) -> int:
    return -(-value // step)
