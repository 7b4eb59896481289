"""What a config.json says of a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.capacity import Attention, NotComputedError, read_shape, shape_of
from rackserve.errors import InputError
from testing.known_models import DEEPSEEK, GEMMA_27B, GPT_OSS, LLAMA_3B, LLAMA_8B, llama, model_configs

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
                "max_window_layers": 0,
            },
            0,
            32,
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
    assert shape.lengths.longest(yarn_scales=False) == 131072


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "new"}, "model_type 'new': the KV cache of this kind of model is not computed here"),
        ({"architectures": ["LlamaBidirectionalModel"]}, "LlamaBidirectionalModel.*this class keeps a KV cache"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; a whole number of 1 or more is needed"),
        ({"num_key_value_heads": 64}, "32 attention heads cannot share 64 KV heads"),
        ({"num_key_value_heads": [8, 4]}, "num_key_value_heads: the layers differ from each other"),
        ({"mamba_d_state": 16}, "mamba_d_state: this key may decide the KV cache"),
        ({"index_topk": 2048}, "index_topk: this key may decide the KV cache"),
        ({"attn_type_list": [0, 1]}, "attn_type_list: this key may decide the KV cache"),
        ({"layer_types": ["linear_attention"] * 32}, "layer_types has linear_attention"),
        ({"layer_types": ["chunked_attention"] * 32}, "layer_types has chunked_attention"),
        ({"layer_types": ["full_attention"]}, "layer_types names 1 layers of 32"),
        ({"layer_types": ["full_attention"] * 32, "sliding_window": 4096}, "layer_types gives it to no layer"),
        ({"layer_types": ["sliding_attention"] * 32}, "sliding_window is missing, and layers have one"),
        ({"torch_dtype": "int8"}, "dtype is 'int8'; known are float32"),
        ({"quantization_config": "fp8"}, "quantization_config is 'fp8'; an object with a quant_method is needed"),
    ],
)
def test_what_is_not_known_is_not_computed_and_its_key_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(NotComputedError, match=message):
        shape_of({**LLAMA_8B, **change})


@pytest.mark.parametrize(
    ("model_type", "change", "message"),
    [
        ("qwen2", {"max_window_layers": 28}, "max_window_layers: vLLM serves a window in every layer of this model"),
        ("qwen2", {}, "max_window_layers is missing"),
        ("qwen2", {"use_sliding_window": "yes"}, "use_sliding_window is 'yes'; true or false is needed"),
        ("gpt_oss", {"layer_types": ["full_attention"] * 32}, "layer_types differs from the layers"),
        ("exaone4", {"sliding_window_pattern": "LLLG"}, "sliding_window_pattern is 'LLLG'"),
        ("mixtral", {"layer_types": ["full_attention", "sliding_attention"] * 16}, "one window for all layers"),
        ("minimax_m2", {"attn_type_list": [0, 1] * 16}, "attn_type_list: the model has layers of another kind"),
    ],
)
def test_a_window_that_a_family_does_not_have_is_not_computed(
    model_type: str, change: dict[str, Any], message: str
) -> None:
    window = {} if model_type == "minimax_m2" else {"sliding_window": 4096, "use_sliding_window": True}
    config = {**LLAMA_8B, "model_type": model_type, **window, **change}
    if model_type != "qwen2":
        config.pop("use_sliding_window", None)

    with pytest.raises(NotComputedError, match=message):
        shape_of(config)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("falcon-rw-1b", {"num_kv_heads": 8}, "num_kv_heads: Falcon's first architecture has as many as heads, or one"),
        ("nemotron-4-mini", {"head_dim": None}, "head_dim is missing"),
        ("granite-3.1-8b", {"num_key_value_heads": ...}, "num_key_value_heads is missing"),
    ],
)
def test_a_number_whose_default_is_not_known_must_be_there(name: str, change: dict[str, Any], message: str) -> None:
    merged = {**model_configs()[name], **change}

    with pytest.raises(NotComputedError, match=message):
        shape_of({key: value for key, value in merged.items() if value is not ...})


def test_the_language_model_of_a_wrapper_may_be_missing_or_unknown() -> None:
    with pytest.raises(NotComputedError, match="text_config, the language model inside, is missing"):
        shape_of({"model_type": "llava", "vision_config": {}})
    with pytest.raises(NotComputedError, match="model_type 'mamba'"):
        shape_of({"model_type": "llava", "text_config": {**LLAMA_8B, "model_type": "mamba"}})
    with pytest.raises(NotComputedError, match="window_layers: this key may decide"):
        shape_of({"model_type": "llava", "text_config": LLAMA_8B, "window_layers": 3})


@pytest.mark.parametrize("part", ["attn_config", "ffn_config"])
def test_dbrx_keeps_its_heads_in_a_part_of_their_own(part: str) -> None:
    config = model_configs()["dbrx"]

    assert shape_of(config).kv_heads == 8
    with pytest.raises(NotComputedError, match="which hold the heads and the experts, are missing"):
        shape_of({key: value for key, value in config.items() if key != part})
    with pytest.raises(NotComputedError, match=f"{part}.window: this key"):
        shape_of({**config, part: {**config[part], "window": 4}})


def test_params_json_is_read_in_mistrals_words(tmp_path: Path) -> None:
    params = {"dim": 5120, "n_layers": 40, "head_dim": 128, "hidden_dim": 32768, "n_heads": 32, "n_kv_heads": 8}
    (tmp_path / "params.json").write_text(json.dumps({**params, "norm_eps": 1e-5, "vocab_size": 131072}))
    shape = read_shape(tmp_path)

    assert (shape.layers, shape.kv_heads, shape.head_size) == (40, 8, 128)
    assert shape.lengths.longest(yarn_scales=False) == 128000


@pytest.mark.parametrize("more", [{"moe": {"num_experts": 8}}, {"sliding_window": [4096]}, {"causal": False}])
def test_more_than_a_plain_params_json_is_not_computed(tmp_path: Path, more: dict[str, Any]) -> None:
    (tmp_path / "params.json").write_text(json.dumps({"dim": 5120, "n_layers": 40, "n_heads": 32, **more}))

    with pytest.raises(NotComputedError, match=f"{next(iter(more))}: this part of a params.json is not computed here"):
        read_shape(tmp_path)


def test_two_configurations_that_differ_are_not_computed(tmp_path: Path) -> None:
    params = {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256}
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    (tmp_path / "params.json").write_text(json.dumps({**params, "max_position_embeddings": 131072}))
    assert read_shape(tmp_path).kv_heads == 8

    (tmp_path / "params.json").write_text(json.dumps({**params, "n_kv_heads": 4}))
    with pytest.raises(NotComputedError, match=r"differ in kv_heads.*and vLLM reads one of them"):
        read_shape(tmp_path)


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
