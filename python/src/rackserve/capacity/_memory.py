"""What a GPU's memory is spent on before the KV cache gets the rest: a prediction, term by term.

vLLM measures these terms while it starts (0.32.0: `v1/worker/gpu_worker.py:641-760`, `v1/worker/utils.py:716-726`).
Weights are counted; the other three are modelled, and set so that they give what an H200 logged for a model of
Llama-3.2-3B's shape with vLLM 0.26.0: 6.04 GiB for the weights and 1.05 GiB beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rackserve.capacity._config import ModelShape
    from rackserve.capacity._release import Release
    from rackserve.capacity._weights import Weights

GIB: Final = 1 << 30
_CONTEXT_ONE: Final = int(0.27 * GIB)  # llm-d-planner 0.3.3, fitted to 49 runs of vLLM 0.19.0 on an H100
_CONTEXT_MANY: Final = int(2.1 * GIB)  # same source, more than one GPU: NCCL's buffers
_GRAPHS: Final = int(0.28 * GIB)  # what is left of the measured 7.09 GiB after counted weights and the terms above
_LOGIT_BYTES: Final = 10  # per request and word of the vocabulary: bfloat16, float32, and float32 once more to sort
_OVERHEAD_DOUBT: Final = 0.5
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
    """One GPU's memory: what is taken first, and what the KV cache gets.

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
    release: Release,
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
    own_weights = Term("weights", math.ceil(weights.size / tensor_parallel), weights.source.value)
    overhead = [
        Term("activations", _activations(shape, batched_tokens, requests, tensor_parallel), "modelled"),
        Term("context", _CONTEXT_ONE if tensor_parallel == 1 else _CONTEXT_MANY, "CUDA, libraries, NCCL: modelled"),
    ]
    if graphs and release.counts_graphs:
        overhead.append(Term("CUDA graphs", _GRAPHS, "modelled"))
    left = math.ceil(gpu_bytes * utilization) - own_weights.size - sum(term.size for term in overhead)
    share = _WEIGHTS_DOUBT if weights.exact else _ESTIMATE_DOUBT
    doubt = share * own_weights.size + _OVERHEAD_DOUBT * sum(term.size for term in overhead)
    return Budget(gpu_bytes, (own_weights, *overhead), max(0, left), max(0, -left), math.ceil(doubt))


def given(available: int, weights: Weights, *, tensor_parallel: int) -> Budget:
    """Return the budget of a KV cache whose memory is set, as on a CPU or with --kv-cache-memory-bytes."""
    own = Term("weights", math.ceil(weights.size / tensor_parallel), weights.source.value)
    return Budget(0, (own,), available)


def _activations(shape: ModelShape, batched_tokens: int, requests: int, tensor_parallel: int) -> int:
    """Return the larger of two moments of vLLM's profile run: a layer's feed-forward part, or the logits."""
    width = shape.intermediate
    if shape.experts is not None:
        width = max(width, shape.experts.per_token * shape.experts.width + shape.experts.shared_width)
    layer = batched_tokens * (3 * width // tensor_parallel + 4 * shape.hidden) * shape.dtype_bytes
    return max(layer, min(requests, batched_tokens) * shape.vocabulary * _LOGIT_BYTES)
