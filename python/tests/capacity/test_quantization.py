"""How a checkpoint is quantized: bits per weight with its scales, and the type of its KV cache."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.capacity import NotComputedError, arithmetic_of, layout_of, read_shape, shape_of
from testing.known_models import LLAMA_8B, write_model

if TYPE_CHECKING:
    from pathlib import Path

_FP8 = {"num_bits": 8, "type": "float", "dynamic": False}


def _groups(**weights: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}


@pytest.mark.parametrize(
    ("quantization", "bits", "kv"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4 + 20 / 128, ""),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8, ""),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, 4 + 20 / 32, ""),
        ({"quant_method": "fp8"}, 8, ""),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 16384, ""),
        ({"quant_method": "mxfp4"}, 4.25, ""),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5, ""),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 4.125, ""),
        ({**_groups(num_bits=8, group_size=None), "kv_cache_scheme": _FP8}, 8, "fp8"),
        (_groups(num_bits=4, type="int", group_size=128, symmetric=True), 4 + 16 / 128, ""),
        (_groups(num_bits=4, type="int", group_size=128, symmetric=False), 4 + 20 / 128, ""),
        (_groups(num_bits=4, type="float", group_size=16, strategy="tensor_group"), 4.5, ""),
        (_groups(num_bits=8, type="float", strategy="block", block_structure=[128, 128]), 8 + 32 / 16384, ""),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, 8, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}, 4.5, ""),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": _FP8}, 4.5, "fp8"),
        (
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "NVFP4"}},
            8,
            "nvfp4",
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["*self_attn*"]}, 0, ""),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, 0, ""),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": None}}}}, 0, ""),
        ({"quant_method": "new"}, 0, ""),
    ],
)
def test_quantized_checkpoints(quantization: dict[str, Any], bits: float, kv: str) -> None:
    found = shape_of({**LLAMA_8B, "quantization_config": quantization}).quantization

    assert found is not None
    assert (found.bits, found.kv_dtype) == (bits, kv)


def test_an_older_modelopt_writes_a_file_of_its_own(tmp_path: Path) -> None:
    write_model(tmp_path, LLAMA_8B)
    algorithm = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    file = tmp_path / "hf_quant_config.json"
    file.write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": algorithm}))
    found = read_shape(tmp_path).quantization

    assert found is not None
    assert (found.method, found.bits, found.kv_dtype) == ("modelopt", 8, "fp8")

    file.write_text("{")
    with pytest.raises(NotComputedError, match=r"hf_quant_config\.json cannot be read"):
        read_shape(tmp_path)


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "NVFP4"},
        {"quant_method": "quark", "kv_cache_quant_algo": "FP8"},
        {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 4}},
    ],
)
def test_a_checkpoint_with_another_kv_type_is_not_computed(quantization: dict[str, Any]) -> None:
    shape = shape_of({**LLAMA_8B, "quantization_config": quantization})

    with pytest.raises(NotComputedError, match="kv_cache_dtype"):
        layout_of(shape, arithmetic_of("0.32.0"), device="cuda", batched_tokens=8192)
