"""How a quantized checkpoint is stored: bits per weight, and the type that it asks for in the KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCALE_BITS: Final = 16
_GROUPED: Final = ("awq", "awq_marlin", "gptq", "gptq_marlin", "auto-round", "auto_round")


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


def read_quantization(config: Mapping[str, Any], text: Mapping[str, Any]) -> Quantization | None:
    """Read `quantization_config`; None for plain weights (see model_arch_config_convertor.py in vLLM)."""
    raw = next(
        (
            part[key]
            for part in (config, text)
            for key in ("quantization_config", "compression_config")
            if isinstance(part.get(key), dict)
        ),
        None,
    )
    if raw is None:
        return None
    method = str(raw.get("quant_method", "")).lower().replace("_tensors", "-tensors")
    return Quantization(method, _bits(method, raw), method == "mxfp4", _kv_dtype(method, raw))


def _bits(method: str, raw: Mapping[str, Any]) -> float:
    if method in _GROUPED:
        return _with_scales(raw.get("bits") or raw.get("w_bit") or 4, raw.get("group_size") or raw.get("q_group_size"))
    if method == "compressed-tensors":
        groups = [group.get("weights") for group in (raw.get("config_groups") or {}).values()]
        weights = next((group for group in groups if group), None)
        return _with_scales(weights["num_bits"], weights.get("group_size")) if weights else 0
    if method == "bitsandbytes":
        return 4.5 if raw.get("load_in_4bit") or raw.get("_load_in_4bit") else 8
    if method.startswith("modelopt"):
        algorithm = str((raw.get("quantization") or raw).get("quant_algo", "")).upper()
        return 4.5 if "FP4" in algorithm else 8 if "FP8" in algorithm else 0
    return {"fp8": 8.0, "fbgemm_fp8": 8.0, "mxfp4": 4.25}.get(method, 0)


def _with_scales(bits: int, group: int | None) -> float:
    if not group or group < 1:
        return float(bits)
    return bits + (_SCALE_BITS + (bits if bits < 8 else 0)) / group  # noqa: PLR2004 - a whole byte has no zero point


def _kv_dtype(method: str, raw: Mapping[str, Any]) -> str:
    """Return the KV type of get_kv_cache_quant_algo_string (utils/torch_utils.py) and of llm-compressor's scheme."""
    inner = raw.get("quantization") if isinstance(raw.get("quantization"), dict) else raw
    scheme = (inner or raw).get("kv_cache_scheme") or raw.get("kv_cache_scheme")
    if method == "compressed-tensors":
        return "fp8" if scheme else ""
    if not method.startswith("modelopt"):
        return ""
    scheme = scheme or (inner or raw).get("kv_cache_quant_algo") or raw.get("kv_cache_quant_algo")
    if isinstance(scheme, dict):
        return {8: "fp8", 4: "nvfp4"}.get(int(scheme.get("num_bits") or 0), "")
    return str(scheme or "").lower()
