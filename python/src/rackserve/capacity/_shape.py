"""A model's shape: what decides the size of its weights and of its KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from rackserve.errors import InputError

if TYPE_CHECKING:
    from rackserve.capacity._lengths import Lengths
    from rackserve.capacity._quantization import Quantization

Config = dict[str, Any]
DTYPE_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}


class NotComputedError(InputError):
    """The model's KV cache is not one whose arithmetic is known here; vLLM may well serve the model."""


class Attention(Enum):
    """How far back a layer looks."""

    FULL = "full"
    SLIDING = "sliding window"
    CHUNKED = "chunked"


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (DeepSeek): one compressed vector per token and layer, whatever the heads."""

    kv_lora_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    q_lora_rank: int


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: how many, how wide, in how many layers."""

    count: int
    width: int
    layers: int
    shared_width: int
    per_token: int


@dataclass(frozen=True)
class ModelShape:
    """The properties of a model that decide its capacity.

    Attributes:
        kv_layers: the layers with a KV cache of their own, in order; some models share one between layers, and an
            encoder has none.
        window: tokens that a sliding layer looks back; also the chunk of a chunked one.
        window_with_itself: the window counts the tokens before a token, not the token itself (Cohere 2).
        heads: attention heads.
        kv_heads: heads with a key and a value of their own; fewer than `heads` with grouped queries.
        lengths: what the model's longest request follows from; it differs between releases.
        vision_parameters: parameters beside the language model, estimated.
    """

    model_type: str
    layers: int
    kv_layers: tuple[Attention, ...]
    window: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    lengths: Lengths
    dtype: str
    tied: bool
    gated: bool
    latent: Latent | None
    experts: Experts | None
    quantization: Quantization | None
    vision_parameters: int
    window_with_itself: bool = False

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one number in the type that the model computes in."""
        return DTYPE_BYTES[self.dtype]
