"""The longest request of a model, as each release derives it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.capacity import arithmetic_of, longest_request, read_shape, shape_of
from testing.known_models import GEMMA_27B, LLAMA_8B, write_model

if TYPE_CHECKING:
    from pathlib import Path

_BEFORE = "0.26.0"
_SINCE = "0.31.0"
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def _longest(config: dict[str, Any], release: str) -> int | None:
    return longest_request(shape_of(config), arithmetic_of(release))


@pytest.mark.parametrize(
    ("change", "before", "since"),
    [
        ({}, 4096, 4096),
        ({"rope_scaling": {"type": "linear", "factor": 8.0}}, 32768, 32768),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, 16384, 16384),
        ({"rope_scaling": _YARN}, 131072, 4096),
        ({"rope_scaling": {**_YARN, "original_max_position_embeddings": None}}, None, None),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 4096, 4096),
        ({"rope_scaling": {"type": "longrope", "factor": 8.0}}, 4096, 4096),
        ({"rope_scaling": {"type": "su", "factor": 8.0}}, 4096, 4096),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}, 4096, 4096),
        ({"rope_scaling": {"type": "linear", "factor": None}}, 4096, 4096),
        ({"rope_scaling": {"type": "new", "factor": 8.0}}, None, None),
        ({"rope_scaling": {"factor": 8.0}}, None, None),
        ({"rope_scaling": "linear"}, None, None),
        ({"rope_parameters": {"rope_theta": 1e6}}, 4096, 4096),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}}, 8192, 8192),
        ({"model_max_length": 131072}, 131072, 131072),
        ({"seq_length": 2048}, 2048, 2048),
        ({"max_position_embeddings": None}, None, None),
        ({"max_position_embeddings": "long"}, None, None),
    ],
)
def test_lengths_follow_the_rope_and_the_release(change: dict[str, Any], before: int | None, since: int | None) -> None:
    config = {**LLAMA_8B, "max_position_embeddings": 4096, **change}

    assert (_longest(config, _BEFORE), _longest(config, _SINCE)) == (before, since)


@pytest.mark.parametrize("release", ["0.6.4.post1", "0.10.2", "0.22.1", "0.26.0", "0.31.0", "0.32.0", "0.33.0"])
def test_yarn_is_multiplied_until_0_31(release: str) -> None:
    config = {**LLAMA_8B, "max_position_embeddings": 40960, "rope_scaling": _YARN}

    assert _longest(config, release) == (40960 if release in ("0.31.0", "0.32.0", "0.33.0") else 131072)


def test_gemma_3_is_not_scaled_again() -> None:
    assert _longest({**GEMMA_27B, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, _SINCE) == 131072


def test_sentence_transformers_own_length_counts_before_all_others(tmp_path: Path) -> None:
    write_model(tmp_path, LLAMA_8B)
    file = tmp_path / "sentence_bert_config.json"
    file.write_text(json.dumps({"max_seq_length": 512}))
    assert longest_request(read_shape(tmp_path), arithmetic_of(_SINCE)) == 512

    file.write_text("{")
    assert longest_request(read_shape(tmp_path), arithmetic_of(_SINCE)) == 131072
