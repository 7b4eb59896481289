"""What a config.json says of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackserve.capacity import Attention, read_shape, shape_of
from rackserve.errors import InputError
from testing.known_models import DEEPSEEK, GEMMA_27B, GPT_OSS, LLAMA_3B, LLAMA_8B, llama

if TYPE_CHECKING:
    from pathlib import Path


def test_grouped_queries_and_a_head_size_that_is_not_divided_out() -> None:
    shape = shape_of({**LLAMA_3B, "head_dim": 64})

    assert (shape.heads, shape.kv_heads, shape.head_size, shape.tied, shape.dtype) == (24, 8, 64, True, "bfloat16")


@pytest.mark.parametrize("missing", [None, 0])
def test_the_head_size_is_divided_out_when_none_is_given(missing: int | None) -> None:
    assert shape_of({**LLAMA_8B, "head_dim": missing}).head_size == 128


@pytest.mark.parametrize(
    ("config", "full", "sliding"),
    [
        (GEMMA_27B, 10, 52),
        ({**GEMMA_27B, "sliding_window_pattern": 2}, 31, 31),
        ({**llama(42, 3584, 16, 8, sliding_window=4096), "model_type": "gemma2"}, 21, 21),
        (GPT_OSS, 12, 12),
        ({**LLAMA_8B, "model_type": "mistral", "sliding_window": 4096}, 0, 32),
        ({**LLAMA_8B, "model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, 32, 0),
        (
            {
                **LLAMA_8B,
                "model_type": "qwen2",
                "sliding_window": 4096,
                "use_sliding_window": True,
                "max_window_layers": 28,
            },
            28,
            4,
        ),
    ],
)
def test_layers_that_look_back_a_window_only(config: dict[str, Any], full: int, sliding: int) -> None:
    kinds = shape_of(config).kv_layers

    assert (kinds.count(Attention.FULL), kinds.count(Attention.SLIDING)) == (full, sliding)


def test_llama_4_has_one_full_layer_in_four() -> None:
    shape = shape_of({**LLAMA_8B, "model_type": "llama4_text", "attention_chunk_size": 8192})

    assert shape.kv_layers.count(Attention.CHUNKED) == 24
    assert shape.window == 8192


def test_deepseek_keeps_one_latent_vector() -> None:
    shape = shape_of(DEEPSEEK)

    assert shape.latent is not None
    assert (shape.latent.kv_lora_rank, shape.latent.rope_dim) == (512, 64)
    assert shape.experts is not None
    assert (shape.experts.count, shape.experts.layers, shape.experts.shared_width) == (256, 58, 2048)


def test_a_vision_model_is_read_through_its_text_part() -> None:
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
    text = {key: value for key, value in GEMMA_27B.items() if key != "torch_dtype"}
    shape = shape_of({"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": text, "vision_config": vision})

    assert (shape.layers, shape.dtype) == (62, "bfloat16")
    assert 0.40e9 < shape.vision_parameters < 0.45e9


def test_what_gemma_3_leaves_to_its_defaults_is_filled_in() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024}
    shape = shape_of({"model_type": "gemma3", "text_config": text, "torch_dtype": "bfloat16"})

    assert (shape.heads, shape.kv_heads, shape.head_size, shape.vocabulary) == (8, 4, 256, 262208)
    assert shape.max_length == 131072


@pytest.mark.parametrize(
    ("quantization", "method", "bits", "kv"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq", 4 + 20 / 128, ""),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "gptq", 8, ""),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 8, ""),
        ({"quant_method": "mxfp4"}, "mxfp4", 4.25, ""),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "group_size": None}}},
                "kv_cache_scheme": {"num_bits": 8, "type": "float"},
            },
            "compressed-tensors",
            8,
            "fp8",
        ),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, "modelopt", 8, "fp8"),
        ({"quant_method": "new"}, "new", 0, ""),
    ],
)
def test_quantized_checkpoints(quantization: dict[str, Any], method: str, bits: float, kv: str) -> None:
    found = shape_of({**LLAMA_8B, "quantization_config": quantization}).quantization

    assert found is not None
    assert (found.method, found.bits, found.kv_dtype) == (method, bits, kv)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers is missing; give the config.json"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; a whole number of 1 or more is needed"),
        ({"mamba_d_state": 16}, "mamba_d_state: the model has Mamba layers"),
        ({"index_topk": 2048}, "sparse attention with an indexer"),
        ({"layer_types": ["linear_attention"] * 32}, "layer_types has linear_attention"),
        ({"layer_types": ["full_attention"]}, "layer_types names 1 of 32 layers"),
        ({"torch_dtype": "int8"}, "dtype is 'int8'; known are float32"),
        ({"max_position_embeddings": None}, "max_position_embeddings is missing"),
    ],
)
def test_what_is_not_understood_is_refused_by_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shape_of({**LLAMA_8B, **change})


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_no_config_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)

    with pytest.raises(InputError, match=rf"{file}: .*give a model's"):
        read_shape(tmp_path)


@pytest.mark.parametrize(("given", "sliding"), [({}, 32), ({"sliding_window": None}, 0)])
def test_a_null_is_not_a_default(given: dict[str, Any], sliding: int) -> None:
    config = {key: value for key, value in LLAMA_8B.items() if key != "sliding_window"}

    assert shape_of({**config, "model_type": "mistral", **given}).kv_layers.count(Attention.SLIDING) == sliding


def test_qwen_uses_its_window_only_when_enabled() -> None:
    assert Attention.SLIDING not in shape_of({**LLAMA_8B, "model_type": "qwen2", "sliding_window": 4096}).kv_layers
