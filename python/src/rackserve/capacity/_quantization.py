"""How a quantized checkpoint is stored: bits per weight, and the type that it asks for in the KV cache."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve.capacity._shape import NotComputedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SCALE_BITS: Final = 16
_BLOCK_SCALE_BITS: Final = 32
_GROUPED: Final = ("awq", "awq_marlin", "gptq", "gptq_marlin", "auto-round", "auto_round")
# Of ModelOpt's algorithms: bits of a weight and its share of scales, FP8 of 8 bits per block of 16 or 32.
_MODELOPT_BITS: Final = {
    "FP8": 8.0,
    "FP8_PER_CHANNEL_PER_TOKEN": 8.0,
    "FP8_PB_WO": 8 + _BLOCK_SCALE_BITS / (128 * 128),
    "NVFP4": 4 + 8 / 16,
    "NVFP4_AWQ": 4 + 8 / 16,
    "MXFP8": 8 + 8 / 32,
}
_PLAIN_BITS: Final = {"fp8": 8.0, "fbgemm_fp8": 8.0, "mxfp4": 4 + 8 / 32, "mxfp8": 8 + 8 / 32, "ptpc_fp8": 8.0}
# What a checkpoint may leave plain without a change that an estimate would show.
_SMALL: Final = re.compile(r"lm_head|embed|router|gate(\.|$|\b)|norm|vision|visual|multi_modal|mm_|mlp\.gate$")
_UNKNOWN_KV: Final = "unknown"


@dataclass(frozen=True)
class Quantization:
    """A quantized checkpoint.

    Attributes:
        method: as the checkpoint names it.
        bits: per weight of a linear layer, scales and zero points shared out; 0 when that is not known.
        experts_only: whether only the experts are quantized.
        kv_dtype: the KV type that `--kv-cache-dtype auto` follows; empty when it has none.
    """

    method: str
    bits: float
    experts_only: bool = False
    kv_dtype: str = ""


def read_quantization(
    config: Mapping[str, Any], text: Mapping[str, Any], folder: Path | None = None
) -> Quantization | None:
    """Read a checkpoint's quantization; None for plain weights.

    Source: vllm 0.32.0, transformers_utils/model_arch_config_convertor.py, _normalize_quantization_config.

    Args:
        config: the whole config.json.
        text: the language model's part of it.
        folder: where it lies; an older ModelOpt writes hf_quant_config.json beside it.

    Raises:
        NotComputedError: when the quantization is no object with a method.
    """
    keys = ("quantization_config", "compression_config")
    raw = next((part[key] for part in (config, text) for key in keys if part.get(key) is not None), None)
    raw = _beside(folder) if raw is None else raw
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise NotComputedError(f"quantization_config is {raw!r}; an object with a quant_method is needed")
    method = str(raw.get("quant_method") or _producer(raw)).lower().replace("_tensors", "-tensors")
    try:
        bits = _bits(method, raw)
    except (TypeError, ValueError, AttributeError, KeyError):
        bits = 0
    return Quantization(method, bits, method == "mxfp4", _kv_dtype(method, raw))


def _beside(folder: Path | None) -> object:
    file = folder / "hf_quant_config.json" if folder else None
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else None
    except (OSError, ValueError) as wrong:
        raise NotComputedError(f"hf_quant_config.json cannot be read ({wrong})") from wrong


def _producer(raw: Mapping[str, Any]) -> str:
    producer = raw.get("producer")
    return str(producer.get("name") or "") if isinstance(producer, dict) else ""


def _inner(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = raw.get("quantization")
    return inner if isinstance(inner, dict) else raw


def _bits(method: str, raw: Mapping[str, Any]) -> float:
    if not _leaves_little(method, raw):
        return 0
    if method in _GROUPED:
        bits = raw.get("bits") or raw.get("w_bit") or raw.get("num_bits") or 4
        return _with_scales(bits, raw.get("group_size") or raw.get("q_group_size"), zero_points=True)
    if method == "compressed-tensors":
        return _compressed_bits(raw)
    if method == "bitsandbytes":
        four = raw.get("load_in_4bit") or raw.get("_load_in_4bit")
        return 4 + (8 / 64 if raw.get("bnb_4bit_use_double_quant") else 32 / 64) if four else 8
    block = raw.get("weight_block_size")
    if method == "fp8" and block:
        return float(8 + _BLOCK_SCALE_BITS / (block[0] * block[1]))
    algorithm = str(_inner(raw).get("quant_algo", "")).upper() if method.startswith("modelopt") else ""
    return _MODELOPT_BITS.get(algorithm) or _PLAIN_BITS.get(method, 0)


def _leaves_little(method: str, raw: Mapping[str, Any]) -> bool:
    """Whether what is left plain is small; gpt-oss leaves all but its experts, which is known."""
    parts = (raw, _inner(raw))
    keys = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers", "dynamic")
    left = [name for part in parts for key in keys for name in part.get(key) or []]
    return method == "mxfp4" or all(_SMALL.search(str(name)) for name in left)


def _compressed_bits(raw: Mapping[str, Any]) -> float:
    groups = [group.get("weights") for group in (raw.get("config_groups") or {}).values()]
    if raw.get("sparsity_config") and raw["sparsity_config"].get("format", "dense") != "dense":
        return 0
    found = {_of_group(group) for group in groups if group}
    return found.pop() if len(found) == 1 else 0


def _of_group(weights: Mapping[str, Any]) -> float:
    bits, group = weights["num_bits"], weights.get("group_size")
    block = weights.get("block_structure")
    if weights.get("strategy") == "block" and block:
        return float(bits + _BLOCK_SCALE_BITS / (block[0] * block[1]))
    if weights.get("type") == "float" and bits == 4:  # noqa: PLR2004 - NVFP4 and MXFP4 have scales of one byte
        return float(bits + 8 / (group or 16))
    return _with_scales(bits, group, zero_points=weights.get("symmetric") is False)


def _with_scales(bits: int, group: int | None, *, zero_points: bool) -> float:
    if not group or group < 1:
        return float(bits)
    whole_byte = 8
    return bits + (_SCALE_BITS + (bits if zero_points and bits < whole_byte else 0)) / group


def _kv_dtype(method: str, raw: Mapping[str, Any]) -> str:
    """Return the KV type of get_kv_cache_quant_algo_string (utils/torch_utils.py) and of llm-compressor's scheme."""
    inner = _inner(raw)
    scheme = inner.get("kv_cache_scheme") or raw.get("kv_cache_scheme")
    if method == "compressed-tensors":
        if not scheme:
            return ""
        return "fp8" if isinstance(scheme, dict) and scheme.get("num_bits") == 8 else _UNKNOWN_KV  # noqa: PLR2004
    scheme = scheme or inner.get("kv_cache_quant_algo") or raw.get("kv_cache_quant_algo")
    if not method.startswith("modelopt"):
        return _UNKNOWN_KV if scheme else ""
    if isinstance(scheme, dict):
        if scheme.get("type") == "float" and scheme.get("num_bits") == 8 and scheme.get("dynamic") is False:  # noqa: PLR2004
            return "fp8"
        return "nvfp4" if scheme.get("type") == "float" and scheme.get("num_bits") == 4 else ""  # noqa: PLR2004
    return {"fp8": "fp8", "nvfp4": "nvfp4"}.get(str(scheme or "").lower(), "")
