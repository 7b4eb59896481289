"""Bytes of a model's weights: counted from the headers of safetensors files, or estimated from its shape."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from rackserve.capacity._shape import NotComputedError
from rackserve.errors import InputError
from rackserve.servable import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from rackserve.capacity._shape import ModelShape
    from rackserve.servable import Tensor

_BITS: Final = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "U16": 16,
    "U32": 32, "U64": 64, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
}  # fmt: skip
_CAST: Final = ("F32", "F16", "BF16")
# Methods that vLLM reads and does not make; each fits its own checkpoint only (config/model.py, _verify_quantization).
_STORED: Final = frozenset({"awq", "gptq", "compressed-tensors"})
_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_LINEAR: Final = re.compile(r"layers\.\d+\..*proj.*weight$|layers\.\d+\..*experts.*weight$")


class Source(Enum):
    """Where the bytes come from."""

    HEADERS = "headers of the safetensors files"
    INDEX = "model.safetensors.index.json"
    SHAPE = "estimate from config.json"


@dataclass(frozen=True)
class Weights:
    """Bytes of the whole model in memory, before they are shared out to GPUs."""

    size: int
    source: Source

    @property
    def exact(self) -> bool:
        """Whether every tensor was counted."""
        return self.source is Source.HEADERS


def weights_of(path: Path, shape: ModelShape, quantization: str | None = None) -> Weights:
    """Return a model's weights: from its files where there are any, else estimated.

    Args:
        path: a safetensors file, a model's folder, or a config.json.
        shape: of the same model.
        quantization: `fp8` for weights that vLLM quantizes when it loads them; the checkpoint's own needs no name.

    Raises:
        InputError: when a file is damaged, or the quantization fits neither the checkpoint nor vLLM.
    """
    online = _online_fp8(shape, quantization)
    folder = path if path.is_dir() else path.parent
    files = [path] if path.suffix == ".safetensors" else sorted(folder.glob("*.safetensors"))
    # A folder may hold a second copy for other programs (Mistral's consolidated files); vLLM reads the first kind.
    files = [file for file in files if not file.name.startswith("consolidated")] or files
    if files:
        tensors = [tensor for file in files for tensor in read_header(file)]
        return Weights(loaded_bytes(tensors, shape, online_fp8=online), Source.HEADERS)
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not online:
        return Weights(_index_total(index), Source.INDEX)
    return Weights(estimated_bytes(shape, online_fp8=online), Source.SHAPE)


def loaded_bytes(tensors: list[Tensor], shape: ModelShape, *, online_fp8: bool = False) -> int:
    """Return the bytes that these tensors take once vLLM has loaded them.

    It casts plain weights to the model's type, takes a tied output layer from the input embeddings, and leaves out the
    layers past the last one (DeepSeek's for speculative decoding).
    """
    return sum(_tensor_bytes(tensor, shape, online_fp8=online_fp8) for tensor in tensors if _is_loaded(tensor, shape))


def estimated_bytes(shape: ModelShape, *, online_fp8: bool = False) -> int:
    """Return the estimated bytes of the weights, from the shape."""
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    attention = shape.layers * _attention_parameters(shape)
    experts, dense = _mlp_parameters(shape)
    bits = 16 * shape.dtype_bytes // 2
    quantized: float = 8 if online_fp8 else bits
    if shape.quantization is not None:
        if not shape.quantization.bits:
            raise NotComputedError(
                f"bits per weight of quantization {shape.quantization.method!r} are not known; "
                "give the model's folder with its safetensors files"
            )
        quantized = shape.quantization.bits
    rest = bits if shape.quantization is not None and shape.quantization.experts_only else quantized
    plain = embeddings + shape.vision_parameters + (2 * shape.layers + 1) * shape.hidden
    return math.ceil((plain * bits + experts * quantized + (attention + dense) * rest) / 8)


def _online_fp8(shape: ModelShape, quantization: str | None) -> bool:
    """Whether vLLM itself makes fp8 of plain weights."""
    if quantization is None:
        return False
    stored = shape.quantization.method if shape.quantization else None
    if stored is None and quantization == "fp8":
        return True
    asked, kept = _root(quantization), _root(stored or "")
    if asked == kept:
        return False
    if asked not in _STORED or (stored and kept not in _STORED):
        raise NotComputedError(
            f"quantization {quantization!r} of {stored or 'plain weights'}: its size is not computed here"
        )
    if asked != kept:
        raise InputError(
            f"quantization {quantization!r}, but the checkpoint has {stored or 'plain weights'}; leave quantization out"
            + (", set fp8, or take a checkpoint of that kind" if stored is None else f", or set {stored}")
        )
    return False


def _root(method: str) -> str:
    """Return a method without its kernel's name: awq_marlin reads what awq stored."""
    root = method.lower().removesuffix("_marlin")
    return "modelopt" if root.startswith("modelopt") else root


def _index_total(index: Path) -> int:
    try:
        return int(json.loads(index.read_text(encoding="utf-8"))["metadata"]["total_size"])
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise NotComputedError(
            f"{index}: no metadata.total_size ({wrong}); give the model's folder with its files"
        ) from wrong


def _is_loaded(tensor: Tensor, shape: ModelShape) -> bool:
    if tensor.name.endswith(("rotary_emb.inv_freq", "masked_bias")):
        return False
    if shape.tied and tensor.name.endswith("lm_head.weight"):
        return False
    layer = _LAYER.search(tensor.name)
    in_language_model = "vision" not in tensor.name and "visual" not in tensor.name
    return layer is None or not in_language_model or int(layer[1]) < shape.layers


def _tensor_bytes(tensor: Tensor, shape: ModelShape, *, online_fp8: bool) -> int:
    if tensor.dtype not in _BITS:
        raise NotComputedError(f"tensor {tensor.name} is of type {tensor.dtype}; known are {', '.join(_BITS)}")
    bits = _BITS[tensor.dtype]
    if shape.quantization is None and tensor.dtype in _CAST:
        bits = 8 if online_fp8 and _LINEAR.search(tensor.name) else 8 * shape.dtype_bytes
    return math.ceil(math.prod(tensor.shape) * bits / 8)


def _attention_parameters(shape: ModelShape) -> int:
    latent, hidden = shape.latent, shape.hidden
    if latent is None:
        return hidden * shape.head_size * (2 * shape.heads + 2 * shape.kv_heads)
    query = shape.heads * (latent.nope_dim + latent.rope_dim)
    down = latent.q_lora_rank * (hidden + query) if latent.q_lora_rank else hidden * query
    keys_values = hidden * (latent.kv_lora_rank + latent.rope_dim)
    up = latent.kv_lora_rank * shape.heads * (latent.nope_dim + latent.value_dim)
    return down + keys_values + up + shape.heads * latent.value_dim * hidden


def _mlp_parameters(shape: ModelShape) -> tuple[int, int]:
    """Return parameters of routed experts, and of every other feed-forward layer."""
    matrices = 3 if shape.gated else 2
    one_dense = matrices * shape.hidden * shape.intermediate
    if shape.experts is None:
        return 0, shape.layers * one_dense
    experts = shape.experts
    routed = experts.layers * experts.count * matrices * shape.hidden * experts.width
    shared = experts.layers * (matrices * shape.hidden * experts.shared_width + shape.hidden * experts.count)
    return routed, shared + (shape.layers - experts.layers) * one_dense
