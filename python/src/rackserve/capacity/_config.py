"""A model's shape, read from its config.json: what decides the size of its weights and of its KV cache."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from rackserve.capacity._defaults import with_defaults
from rackserve.capacity._quantization import Quantization, read_quantization
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Config = dict[str, Any]
DTYPE_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
_PATTERNS: Final = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}
_TEXT_KEYS: Final = ("text_config", "llm_config", "language_config")
_LENGTH_KEYS: Final = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
_KV_HEAD_KEYS: Final = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num")
# Models whose layers keep a state, or entries of unequal size, instead of one key and value per token.
_OTHER_STATE: Final = {
    "compress_ratios": "compressed attention (DeepSeek V4)",
    "index_topk": "sparse attention with an indexer (DeepSeek V3.2)",
    "mamba_d_state": "Mamba layers",
    "mamba_d_ssm": "Mamba layers",
    "ssm_state_size": "Mamba layers",
    "state_size": "Mamba layers",
    "linear_attn_config": "linear attention",
    "linear_key_head_dim": "linear attention",
    "hybrid_override_pattern": "Mamba layers",
    "global_head_dim": "layers with heads of two sizes",
    "block_configs": "layers that differ from each other",
}


class NotComputedError(InputError):
    """The KV cache is of a kind whose arithmetic is not known here; vLLM may well serve the model."""


class Attention(Enum):
    """How far back a layer looks."""

    FULL = "full"
    SLIDING = "sliding window"
    CHUNKED = "chunked"


_LAYER_TYPES: Final = {
    "full_attention": Attention.FULL,
    "attention": Attention.FULL,
    "sliding_attention": Attention.SLIDING,
    "chunked_attention": Attention.CHUNKED,
}


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
        kv_layers: the layers with a KV cache of their own, in order; some models share one between layers.
        window: tokens that a sliding layer looks back; also the chunk of a chunked one.
        heads: attention heads.
        kv_heads: heads with a key and a value of their own; fewer than `heads` with grouped queries.
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
    max_length: int
    dtype: str
    tied: bool
    gated: bool
    latent: Latent | None
    experts: Experts | None
    quantization: Quantization | None
    vision_parameters: int

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one number in the type that the model computes in."""
        return DTYPE_BYTES[self.dtype]


def read_shape(path: Path) -> ModelShape:
    """Read a config.json, or the one of a folder.

    Raises:
        InputError: naming the file, what is missing or wrong, and what to give.
        NotComputedError: when the model keeps something else than keys and values.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as wrong:
        raise InputError(
            f"{file}: no readable config.json ({wrong}); give a model's folder or its config.json"
        ) from wrong
    if not isinstance(raw, dict):
        raise InputError(f"{file}: a JSON {type(raw).__name__}, not an object; give a model's config.json")
    try:
        return shape_of(raw)
    except InputError as wrong:
        raise type(wrong)(f"{file}: {wrong}") from wrong


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape that a config.json describes.

    Raises:
        InputError: when a number is missing or wrong.
        NotComputedError: when the model keeps something else than keys and values.
    """
    text = _text_part(config)
    _refuse_other_state(text)
    layers = _number(text, "num_hidden_layers", "n_layer", "num_layers")
    heads = _number(text, "num_attention_heads", "n_head")
    hidden = _number(text, "hidden_size", "n_embd", "d_model")
    latent = _latent(text)
    kinds, window = _attention(text, layers)
    return ModelShape(
        model_type=str(text.get("model_type") or config.get("model_type") or "unknown"),
        layers=layers,
        kv_layers=kinds[: layers - int(text.get("num_kv_shared_layers") or 0)],
        window=window,
        hidden=hidden,
        intermediate=_number(text, "intermediate_size_mlp", "intermediate_size", "n_inner", default=4 * hidden),
        heads=heads,
        kv_heads=_number(text, *_KV_HEAD_KEYS, default=heads),
        head_size=int(text.get("head_dim") or 0) or hidden // heads,
        vocabulary=_number(text, "vocab_size"),
        max_length=_max_length(text),
        dtype=_dtype(config, text),
        tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        gated=text.get("model_type") not in ("gpt2", "opt", "gpt_neox", "falcon", "starcoder2", "phi"),
        latent=latent,
        experts=_experts(text, layers),
        quantization=read_quantization(config, text),
        vision_parameters=_vision_parameters(config),
    )


def _text_part(config: Mapping[str, Any]) -> Config:
    for key in _TEXT_KEYS:
        part = config.get(key)
        if isinstance(part, dict):
            return with_defaults(part)
    return with_defaults(config)


def _refuse_other_state(text: Config) -> None:
    for key, what in _OTHER_STATE.items():
        if text.get(key):
            raise NotComputedError(
                f"{key}: the model has {what}, whose cache is not computed here; "
                "start vLLM once and plan with what it logs"
            )


def _number(text: Config, *keys: str, default: int | None = None) -> int:
    for key in keys:
        value = text.get(key)
        if value is None:
            continue
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{key} is {value!r}; a whole number of 1 or more is needed")
        return value
    if default is None:
        raise InputError(f"{keys[0]} is missing; give the config.json of a language model in Hugging Face's format")
    return default


def _attention(text: Config, layers: int) -> tuple[tuple[Attention, ...], int]:
    window = int(text.get("sliding_window") or 0) if text.get("use_sliding_window", True) else 0
    chunk = int(text.get("attention_chunk_size") or 0)
    names = text.get("layer_types")
    if isinstance(names, list):
        unknown = sorted({str(name) for name in names} - set(_LAYER_TYPES))
        if unknown:
            raise NotComputedError(f"layer_types has {', '.join(unknown)}, whose cache is not computed here")
        if len(names) < layers:
            raise InputError(f"layer_types names {len(names)} of {layers} layers; give a whole config.json")
        kinds = tuple(_LAYER_TYPES[name] for name in names[:layers])
    elif chunk:
        rope = text.get("no_rope_layers") or [(layer + 1) % 4 != 0 for layer in range(layers)]
        kinds = tuple(Attention.CHUNKED if uses_rope else Attention.FULL for uses_rope in rope)
    elif window:
        every = text.get("sliding_window_pattern") or text.get("_sliding_window_pattern")
        every = every if isinstance(every, int) else _PATTERNS.get(str(text.get("model_type")), 0)
        first = int(text.get("max_window_layers") or 0) if str(text.get("model_type")).startswith("qwen") else 0
        kinds = tuple(
            Attention.FULL if layer < first or (every and (layer + 1) % every == 0) else Attention.SLIDING
            for layer in range(layers)
        )
    else:
        kinds = (Attention.FULL,) * layers
    if Attention.SLIDING in kinds and not window:
        kinds = tuple(Attention.FULL for _ in kinds)
    return kinds, chunk if Attention.CHUNKED in kinds else window


def _latent(text: Config) -> Latent | None:
    if not text.get("kv_lora_rank"):
        return None
    return Latent(
        kv_lora_rank=_number(text, "kv_lora_rank"),
        rope_dim=_number(text, "qk_rope_head_dim"),
        nope_dim=_number(text, "qk_nope_head_dim"),
        value_dim=_number(text, "v_head_dim"),
        q_lora_rank=int(text.get("q_lora_rank") or 0),
    )


def _experts(text: Config, layers: int) -> Experts | None:
    count = _number(text, "n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts", default=1)
    if count == 1:
        return None
    width = _number(text, "moe_intermediate_size", "intermediate_size")
    step = int(
        text.get("decoder_sparse_step") or text.get("interleave_moe_layer_step") or text.get("moe_layer_freq") or 1
    )
    dense = int(text.get("first_k_dense_replace") or 0) + len(text.get("mlp_only_layers") or [])
    shared = int(text.get("shared_expert_intermediate_size") or 0) or int(text.get("n_shared_experts") or 0) * width
    if text.get("model_type") == "llama4_text":
        shared = width
    return Experts(
        count=count,
        width=width,
        layers=max(0, layers - dense) // max(1, step),
        shared_width=shared,
        per_token=_number(text, "num_experts_per_tok", "num_experts_per_token", "top_k_experts", default=2),
    )


def _max_length(text: Config) -> int:
    found = [int(text[key]) for key in _LENGTH_KEYS if text.get(key)]
    if not found:
        raise InputError("max_position_embeddings is missing, which is the longest context of the model")
    return min(found)


def _dtype(config: Mapping[str, Any], text: Config) -> str:
    parts = (config, text, config.get("vision_config") or {})
    name = next((str(part[key]) for part in parts for key in ("dtype", "torch_dtype") if part.get(key)), "float32")
    name = name.removeprefix("torch.")
    if name not in DTYPE_BYTES:
        raise InputError(f"dtype is {name!r}; known are {', '.join(DTYPE_BYTES)}")
    return (
        "bfloat16" if name == "float32" else name
    )  # vLLM's --dtype auto halves it (config/model.py, _resolve_auto_dtype)


def _vision_parameters(config: Mapping[str, Any]) -> int:
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        return 0
    hidden = int(vision.get("hidden_size") or 0)
    width = int(vision.get("intermediate_size") or 4 * hidden)
    depth = int(vision.get("num_hidden_layers") or vision.get("depth") or 0)
    return depth * (4 * hidden * hidden + 2 * hidden * width)
