"""Bytes of weights: counted from headers, else estimated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.capacity import Source, shape_of, weights_of
from rackserve.errors import InputError
from testing.known_models import DEEPSEEK, GPT_OSS, LLAMA_3B, LLAMA_8B, SMOLLM2, write_model

if TYPE_CHECKING:
    from pathlib import Path

_PROJECTION = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("config", "gib", "tolerance"),
    [
        (LLAMA_8B, 14.96, 0.001),
        (LLAMA_3B, 5.984, 0.001),
        (SMOLLM2, 0.25055, 0.001),
        (GPT_OSS, 12.8, 0.02),  # the published checkpoint: 13.76e9 bytes
        (DEEPSEEK, 626.6, 0.01),  # 671e9 parameters in fp8, embeddings in bfloat16
    ],
)
def test_an_estimate_comes_close_to_the_published_size(
    tmp_path: Path, config: dict[str, Any], gib: float, tolerance: float
) -> None:
    found = weights_of(write_model(tmp_path, config), shape_of(config))

    assert found.source is Source.SHAPE
    assert found.size / 2**30 == pytest.approx(gib, rel=tolerance)


def test_headers_are_counted_in_the_type_that_vllm_computes_in(tmp_path: Path) -> None:
    folder = write_model(tmp_path, LLAMA_8B, {_PROJECTION: ("F32", [10, 10]), "model.norm.weight": ("BF16", [10])})
    found = weights_of(folder, shape_of(LLAMA_8B))

    assert (found.size, found.source, found.exact) == (220, Source.HEADERS, True)


def test_what_vllm_does_not_load_is_not_counted(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": ("BF16", [4, 4]),
        "lm_head.weight": ("BF16", [4, 4]),
        "model.layers.28.mlp.up_proj.weight": ("BF16", [4, 4]),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [4]),
    }

    assert weights_of(write_model(tmp_path, LLAMA_3B, tensors), shape_of(LLAMA_3B)).size == 32


def test_quantized_tensors_keep_the_size_they_have(tmp_path: Path) -> None:
    config = {**LLAMA_8B, "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}
    folder = write_model(tmp_path, config, {"model.layers.0.mlp.qweight": ("I32", [8, 8]), "s": ("F32", [2])})

    assert weights_of(folder, shape_of(config), "awq").size == 8 * 8 * 4 + 8


def test_fp8_halves_the_linear_layers_of_a_plain_checkpoint(tmp_path: Path) -> None:
    tensors = {_PROJECTION: ("BF16", [10, 10]), "model.embed_tokens.weight": ("BF16", [10, 10])}

    assert weights_of(write_model(tmp_path, LLAMA_8B, tensors), shape_of(LLAMA_8B), "fp8").size == 300


def test_an_index_without_its_files_gives_their_sum(tmp_path: Path) -> None:
    write_model(tmp_path, LLAMA_8B)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 16060522496}}))
    found = weights_of(tmp_path, shape_of(LLAMA_8B))

    assert (found.size, found.source) == (16060522496, Source.INDEX)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    write_model(tmp_path, LLAMA_8B)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 12)

    with pytest.raises(InputError, match=r"model\.safetensors: not a whole safetensors file .*fetch it again"):
        weights_of(tmp_path, shape_of(LLAMA_8B))


@pytest.mark.parametrize(
    ("stored", "asked", "message"),
    [
        (None, "awq", "'awq', but the checkpoint has plain weights; leave quantization out, set fp8"),
        ("gptq", "awq", "'awq', but the checkpoint has gptq; leave quantization out, or set gptq"),
    ],
)
def test_a_quantization_that_contradicts_the_checkpoint_is_refused(
    tmp_path: Path, stored: str | None, asked: str, message: str
) -> None:
    config = {**LLAMA_8B, **({"quantization_config": {"quant_method": stored, "bits": 4}} if stored else {})}

    with pytest.raises(InputError, match=message):
        weights_of(write_model(tmp_path, config), shape_of(config), asked)


def test_an_unknown_quantization_cannot_be_estimated(tmp_path: Path) -> None:
    config = {**LLAMA_8B, "quantization_config": {"quant_method": "new"}}

    with pytest.raises(
        InputError, match="bits per weight of quantization 'new' are not known; give the model's folder"
    ):
        weights_of(write_model(tmp_path, config), shape_of(config))
