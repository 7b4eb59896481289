"""Prediction of a GPU's memory use before the KV cache gets the rest, term by term.

vLLM measures these terms while it starts (0.32.0: `v1/worker/gpu_worker.py:641-760`, `v1/worker/utils.py:716-726`).
Weights are counted; the other terms are modelled after what vLLM 0.26.0 counted on an H200, to the byte, in the runs of
python/tests/data/h200/capacity.json. A first start is predicted: it compiles, which later ones need no memory for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rackserve.capacity._arithmetic import Arithmetic
    from rackserve.capacity._shape import ModelShape
    from rackserve.capacity._weights import Weights

GIB: Final = 1 << 30
_MIB: Final = 1 << 20
_CONTEXT_ONE: Final = 230 * _MIB  # the same in 13 of 14 runs on an H200, 238 MiB in the other; CUDA's own is not in it
_CONTEXT_MANY: Final = int(2.1 * GIB)  # llm-d-planner 0.3.3, vLLM 0.19.0 on H100s, several GPUs: NCCL's buffers
_WORKSPACES: Final = 93 * _MIB  # what a first start's layers take beside their tensors; 32 MiB when nothing is compiled
_GRAPH_BYTES: Final = 210_000  # per layer and graph; vLLM estimated 166,000 before, and used 187,000 to 301,000 after
_LOGIT_BYTES: Final = 8  # at most: more per request and word would have shown in the run with 1024 requests
_LARGEST_GRAPH: Final = 512
_OVERHEAD_DOUBT_ONE: Final = 0.25
_OVERHEAD_DOUBT_MANY: Final = 0.5
_WEIGHTS_DOUBT: Final = 0.02
_ESTIMATE_DOUBT: Final = 0.05


@dataclass(frozen=True)
class Term:
    """One part of a GPU's memory."""

    name: str
    size: int
    how: str


@dataclass(frozen=True)
class Budget:
    """One GPU's memory: the terms before the KV cache, and the KV cache.

    Attributes:
        total: the GPU's memory; 0 when only the KV cache's is known.
        terms: what is taken before the KV cache.
        available: bytes for the KV cache, 0 when nothing is left.
        missing: bytes by which the terms exceed what vLLM may use.
        doubt: bytes by which a prediction may be off, either way; 0 when `available` was given.
    """

    total: int
    terms: tuple[Term, ...]
    available: int
    missing: int = 0
    doubt: int = 0

    @property
    def predicted(self) -> bool:
        """Whether the KV cache's memory is a prediction."""
        return self.doubt > 0

    @property
    def unused(self) -> int:
        """Bytes that vLLM leaves to others."""
        return max(0, self.total - sum(term.size for term in self.terms) - self.available) if self.total else 0


def predict(
    shape: ModelShape,
    weights: Weights,
    release: Arithmetic,
    *,
    gpu_bytes: int,
    utilization: float,
    tensor_parallel: int,
    batched_tokens: int,
    requests: int,
    graphs: bool = True,
) -> Budget:
    """Predict what is left for the KV cache on each GPU.

    Args:
        shape: the model.
        weights: all of them.
        release: which vLLM.
        gpu_bytes: what torch.cuda.mem_get_info() calls the total.
        utilization: --gpu-memory-utilization.
        tensor_parallel: GPUs that share the model.
        batched_tokens: --max-num-batched-tokens.
        requests: --max-num-seqs.
        graphs: False for --enforce-eager.
    """
    size = math.ceil(weights.size / tensor_parallel) + _rotary_table(shape)
    own_weights = Term("weights", size, weights.source.value)
    peaks = [
        _layer(shape, batched_tokens, tensor_parallel),
        min(requests, batched_tokens) * shape.vocabulary * _LOGIT_BYTES,
    ]
    if graphs and release.tries_kernels:
        peaks.append(_trial(shape, batched_tokens, tensor_parallel))
    overhead = [
        Term("activations", max(peaks), "modelled"),
        Term("context", _CONTEXT_ONE if tensor_parallel == 1 else _CONTEXT_MANY, "CUDA, libraries, NCCL: modelled"),
    ]
    if graphs and release.counts_graphs(shape):
        overhead.append(
            Term("CUDA graphs", shape.layers * graphs_of(requests, batched_tokens) * _GRAPH_BYTES, "modelled")
        )
    left = math.ceil(gpu_bytes * utilization) - own_weights.size - sum(term.size for term in overhead)
    share = _WEIGHTS_DOUBT if weights.exact else _ESTIMATE_DOUBT
    overhead_share = _OVERHEAD_DOUBT_ONE if tensor_parallel == 1 else _OVERHEAD_DOUBT_MANY
    doubt = share * own_weights.size + overhead_share * sum(term.size for term in overhead)
    return Budget(gpu_bytes, (own_weights, *overhead), max(0, left), max(0, -left), math.ceil(doubt))


def given(available: int, weights: Weights, *, tensor_parallel: int) -> Budget:
    """Return the budget of a KV cache whose memory is set, as on a CPU or with --kv-cache-memory-bytes."""
    own = Term("weights", math.ceil(weights.size / tensor_parallel), weights.source.value)
    return Budget(0, (own,), available)


def graphs_of(requests: int, batched_tokens: int) -> int:
    """Return how many CUDA graphs are captured (0.26.0: `config/vllm.py`, `_set_cudagraph_sizes`).

    Batches of 1, 2, 4, every 8th below 256 and every 16th up to twice max_num_seqs, at most 512; those of at most
    max_num_seqs once more, as a whole instead of in pieces.
    """
    largest = min(2 * requests, _LARGEST_GRAPH, batched_tokens)
    sizes: list[int] = [
        size for size in (1, 2, 4, *range(8, 256, 8), *range(256, _LARGEST_GRAPH + 1, 16)) if size <= largest
    ]
    return len(sizes) + sum(size <= requests for size in sizes)


def _layer(shape: ModelShape, batched_tokens: int, tensor_parallel: int) -> int:
    """Return the peak of the profile run's forward pass: one layer's feed-forward part and three hidden states."""
    width = shape.intermediate
    if shape.experts is not None:
        width = max(width, shape.experts.per_token * shape.experts.width + shape.experts.shared_width)
    return batched_tokens * 3 * (width // tensor_parallel + shape.hidden) * shape.dtype_bytes + _WORKSPACES


def _trial(shape: ModelShape, batched_tokens: int, tensor_parallel: int) -> int:
    """Return what the compiler takes to time the kernel that reads the embeddings: a copy of them, input and output."""
    return (shape.vocabulary // tensor_parallel + 2 * batched_tokens) * shape.hidden * shape.dtype_bytes


def _rotary_table(shape: ModelShape) -> int:
    width = shape.latent.rope_dim if shape.latent else shape.head_size
    return int(shape.lengths.smallest or 0) * width * shape.dtype_bytes
