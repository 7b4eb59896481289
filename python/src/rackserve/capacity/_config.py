"""Reads a model's shape from its config.json: exactly as vLLM does, or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rackserve.capacity import _feed_forward
from rackserve.capacity._defaults import HEADS_FOR_ALL, OWN_HEAD_SIZE, with_defaults
from rackserve.capacity._families import FAMILIES, WRAPPERS, Family, Heads
from rackserve.capacity._keys import refuse_unread, refuse_unread_beside, refuse_unread_inside
from rackserve.capacity._lengths import lengths_of
from rackserve.capacity._mistral import from_params
from rackserve.capacity._numbers import flag, number
from rackserve.capacity._quantization import read_quantization
from rackserve.capacity._shape import DTYPE_BYTES, Config, Latent, ModelShape, NotComputedError
from rackserve.capacity._windows import windows_of
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_DBRX: Final = {
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
}
_SENTENCE_FILES: Final = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_COMPARED: Final = ("kv_layers", "window", "kv_heads", "head_size", "heads", "lengths")


def read_shape(path: Path) -> ModelShape:
    """Read the shape of a model's folder, of its config.json, or of Mistral's params.json.

    Raises:
        InputError: when there is no readable file; it is named, and what to give.
        NotComputedError: when vLLM may serve the model, but its KV cache is not computed here.
    """
    if not path.is_dir():
        return _read(path)
    config, params = path / "config.json", path / "params.json"
    if config.is_file() and params.is_file():  # which of them counts depends on the release and on the weights' names
        shape, other = _read(config), _read(params)
        unlike = [name for name in _COMPARED if getattr(shape, name) != getattr(other, name)]
        if unlike:
            raise NotComputedError(
                f"{path}: config.json and params.json differ in {', '.join(unlike)}, and vLLM reads one of them"
            )
        return shape
    return _read(params if params.is_file() else config)


def shape_of(config: Mapping[str, Any], folder: Path | None = None) -> ModelShape:
    """Return the shape that a config.json describes.

    Args:
        config: its content.
        folder: where it lies; files beside it hold an older ModelOpt's quantization and an encoder's length.

    Raises:
        NotComputedError: when the model is not of a family that is known here, or has a key that is not.
    """
    text, kind = _text_part(config)
    family = FAMILIES.get(kind)
    if family is None:
        raise NotComputedError(
            f"model_type {kind!r}: the KV cache of this kind of model is not computed here; "
            "start vLLM once and plan with what it logs"
        )
    if kind == "dbrx":
        text = _flat_dbrx(text)
    refuse_unread(text, family)
    layers = number(text, *family.names.get("num_hidden_layers", ("num_hidden_layers",)))
    heads = number(text, *family.names.get("num_attention_heads", ("num_attention_heads",)))
    hidden = number(text, *family.names.get("hidden_size", ("hidden_size",)))
    kv_heads = _kv_heads(text, family, kind, heads)
    if heads % kv_heads:
        raise NotComputedError(f"{heads} attention heads cannot share {kv_heads} KV heads")
    kinds, window = windows_of(text, family, layers)
    shared = number(text, "num_kv_shared_layers", default=0)
    encoder = family.heads is Heads.NONE
    return ModelShape(
        model_type=kind,
        layers=layers,
        kv_layers=() if encoder else kinds[: max(0, layers - shared)],
        window=window,
        hidden=hidden,
        intermediate=_feed_forward.width(text, family, hidden),
        heads=heads,
        kv_heads=kv_heads,
        head_size=_head_size(text, family, kind, hidden, heads),
        vocabulary=number(text, *family.names.get("vocab_size", ("vocab_size",))),
        lengths=lengths_of(text, kind, _sentence_length(folder)),
        dtype=_dtype(config, text),
        tied=flag(text, "tie_word_embeddings", flag(config, "tie_word_embeddings", default=False)),
        gated=family.gated,
        latent=_latent(text, family),
        experts=_feed_forward.experts(text, layers),
        quantization=read_quantization(config, text, folder),
        vision_parameters=_feed_forward.vision_parameters(config),
        window_with_itself=kind == "cohere2",
    )


def _read(file: Path) -> ModelShape:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as wrong:
        raise InputError(
            f"{file}: no readable config.json ({wrong}); give a model's folder or its config.json"
        ) from wrong
    if not isinstance(raw, dict):
        raise InputError(f"{file}: a JSON {type(raw).__name__}, not an object; give a model's config.json")
    try:
        return shape_of(from_params(raw) if file.name == "params.json" else raw, file.parent)
    except InputError as wrong:
        raise type(wrong)(f"{file}: {wrong}") from wrong


def _text_part(config: Mapping[str, Any]) -> tuple[Config, str]:
    """Return the language model's part with what it may leave out, and its model_type."""
    kind = str(config.get("model_type") or "unknown")
    wrapper = WRAPPERS.get(kind)
    named = wrapper or FAMILIES.get(kind)
    own_class = False
    part: Any = config
    if wrapper is not None:
        own_class = wrapper.own_class
        for key in wrapper.path:
            part = part.get(key) if isinstance(part, dict) else None
        if isinstance(part, dict):
            refuse_unread_beside(config, wrapper.path[0])
        elif kind in FAMILIES:  # Qwen2-VL's older files keep the language model's numbers beside the rest
            part = {key: value for key, value in config.items() if key != "vision_config"}
        else:
            raise NotComputedError(f"{'.'.join(wrapper.path)}, the language model inside, is missing")
    _refuse_classes(config, named.architectures if named else ())
    inner = str(part.get("model_type") or kind)
    if part is not config and not own_class and inner in FAMILIES and "architectures" in part and inner != kind:
        _refuse_classes(part, FAMILIES[inner].architectures)
    return with_defaults(part, inner, inside=part is not config), inner


def _refuse_classes(config: Mapping[str, Any], known: tuple[str, ...]) -> None:
    named = config.get("architectures") or []
    if known and (not isinstance(named, list) or any(name not in known for name in named)):
        raise NotComputedError(
            f"architectures {named!r}: this class keeps a KV cache that is not computed here; "
            "start vLLM once and plan with what it logs"
        )


def _flat_dbrx(text: Config) -> Config:
    attention, feed_forward = text.get("attn_config"), text.get("ffn_config")
    if not isinstance(attention, dict) or not isinstance(feed_forward, dict):
        raise NotComputedError("attn_config and ffn_config, which hold the heads and the experts, are missing")
    refuse_unread_inside("attn_config", attention)
    refuse_unread_inside("ffn_config", feed_forward)
    flat = {_DBRX.get(key, key): value for key, value in text.items() if key not in ("attn_config", "ffn_config")}
    if "kv_n_heads" in attention:
        flat["num_key_value_heads"] = attention["kv_n_heads"]
    flat["intermediate_size"] = feed_forward.get("ffn_hidden_size")
    flat["moe_num_experts"] = feed_forward.get("moe_num_experts")
    flat["num_experts_per_tok"] = feed_forward.get("moe_top_k")
    return flat


def _kv_heads(text: Config, family: Family, kind: str, heads: int) -> int:
    """Return the heads with a key and a value (get_total_num_kv_heads of vLLM's convertors)."""
    match family.heads:
        case Heads.FALCON:
            return _falcon_kv_heads(text, heads)
        case Heads.BIGCODE:
            return 1 if flag(text, "multi_query", default=True) else heads
        case Heads.CHATGLM:
            return (
                number(text, "multi_query_group_num") if flag(text, "multi_query_attention", default=False) else heads
            )
        case Heads.GROUPED | Heads.LATENT:
            if "num_key_value_heads" not in text and kind not in HEADS_FOR_ALL:
                raise NotComputedError("num_key_value_heads is missing, so the KV cache is not computed")
            return number(text, "num_key_value_heads", default=heads)
        case _:
            return heads


def _falcon_kv_heads(text: Config, heads: int) -> int:
    given = number(text, "n_head_kv", "num_kv_heads", default=heads)
    if flag(text, "new_decoder_architecture", default=False):
        return given
    if flag(text, "multi_query", default=True):
        return 1
    if given != heads:
        raise NotComputedError("num_kv_heads: Falcon's first architecture has as many as heads, or one")
    return heads


def _head_size(text: Config, family: Family, kind: str, hidden: int, heads: int) -> int:
    if family.heads is Heads.PADDED:
        return number(text, "qk_nope_head_dim") + number(text, "qk_rope_head_dim")
    if family.heads is Heads.GROUPED and text.get("head_dim"):
        return number(text, "head_dim")
    if kind in OWN_HEAD_SIZE:
        raise NotComputedError("head_dim is missing, so the KV cache is not computed")
    return hidden // heads


def _latent(text: Config, family: Family) -> Latent | None:
    if family.heads is not Heads.LATENT:
        return None
    return Latent(
        kv_lora_rank=number(text, "kv_lora_rank"),
        rope_dim=number(text, "qk_rope_head_dim"),
        nope_dim=number(text, "qk_nope_head_dim"),
        value_dim=number(text, "v_head_dim"),
        q_lora_rank=number(text, "q_lora_rank", default=0),
    )


def _sentence_length(folder: Path | None) -> int | None:
    """Return the length in sentence-transformers' file, which counts before config.json's.

    Source: vllm 0.32.0, transformers_utils/config.py, get_sentence_transformer_tokenizer_config.
    """
    for name in _SENTENCE_FILES:
        file = folder / name if folder else None
        try:
            found = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else None
        except (OSError, ValueError):
            return None
        if isinstance(found, dict) and found:
            length = found.get("max_seq_length")
            return length if isinstance(length, int) and not isinstance(length, bool) else None
    return None


def _dtype(config: Mapping[str, Any], text: Config) -> str:
    parts = [config, text]
    parts += [part for key in ("vision_config", "encoder_config") if isinstance(part := config.get(key), dict)]
    name = next((str(part[key]) for part in parts for key in ("dtype", "torch_dtype") if part.get(key)), "float32")
    name = name.removeprefix("torch.")
    if name not in DTYPE_BYTES:
        raise NotComputedError(f"dtype is {name!r}; known are {', '.join(DTYPE_BYTES)}")
    return (
        "bfloat16" if name == "float32" else name
    )  # vLLM's --dtype auto halves it (config/model.py, _resolve_auto_dtype)
