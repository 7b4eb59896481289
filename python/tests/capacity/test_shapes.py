"""Shapes of published models: what vLLM's own classes build, or not computed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.capacity import NotComputedError, shape_of
from testing.known_models import model_configs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_CONFIGS = model_configs()
_ANSWERS: dict[str, Any] = json.loads(Path(__file__).with_name("vllm_shapes.json").read_text(encoding="utf-8"))
_TOOLS = Path(__file__).parents[2] / "tools"
_NOT_COMPUTED = {
    "afmoe",
    "baichuan2-7b",
    "granite-4-h-small",
    "hunyuan-7b",
    "jamba-mini",
    "mamba-2.8b",
    "mimo-7b",
    "nemotron-super-49b",
    "qwen2-window-on",
    "qwen3-next-80b",
    "whisper-large-v3",
}
_COMPUTED = sorted(set(_CONFIGS) - _NOT_COMPUTED)
_STRANGE = {
    "attention_layer_pattern": "AAM",
    "global_head_dim": 512,
    "hybrid_layer_ids": [1, 7],
    "kv_sharing_layers": 4,
    "linear_attn_every": 4,
    "mamba_d_state": 16,
    "num_memory_tokens": 64,
    "mixer": "mamba2",
    "hc_mult": 4,
    "key_size": 64,
    "state_size": 16,
    "text_config": {"model_type": "mamba"},
    "use_cla": True,
    "window_size_per_layer": [128] * 4,
}
_SHAPE_KEYS = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
    "layer_types",
    "kv_lora_rank",
    "qk_rope_head_dim",
    "attention_chunk_size",
    "num_kv_shared_layers",
    "multi_query",
    "n_head",
    "n_layer",
)


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(_TOOLS))
        yield importlib.import_module("ask_shapes")


def test_every_configuration_was_asked_and_sixty_and_more_are_computed() -> None:
    assert set(_ANSWERS) == set(_CONFIGS)
    assert len(_COMPUTED) >= 60


@pytest.mark.parametrize("name", _COMPUTED)
def test_a_computed_shape_is_vllms(tool: ModuleType, name: str) -> None:
    assert tool.ours(_CONFIGS[name]) == _ANSWERS[name]


@pytest.mark.parametrize("name", sorted(_NOT_COMPUTED))
def test_every_other_shape_is_not_computed(name: str) -> None:
    with pytest.raises(NotComputedError):
        shape_of(_CONFIGS[name])


@pytest.mark.parametrize("key", _STRANGE)
@pytest.mark.parametrize("name", _COMPUTED)
def test_a_key_that_nobody_read_makes_a_shape_not_computed(tool: ModuleType, name: str, key: str) -> None:
    changed = _with(_CONFIGS[name], {key: _STRANGE[key]})

    assert "not computed" in tool.ours(changed) or _ANSWERS[name]["layers"] == []


@pytest.mark.parametrize("name", _COMPUTED)
def test_a_renamed_key_makes_a_shape_not_computed(tool: ModuleType, name: str) -> None:
    text = _text(_CONFIGS[name])
    for key in _SHAPE_KEYS:
        if text.get(key) is None or not _ANSWERS[name]["layers"]:
            continue
        changed = {f"{other}_x" if other == key else other: value for other, value in text.items()}
        assert "not computed" in tool.ours(_replaced(_CONFIGS[name], changed)), key


def _text(config: dict[str, Any]) -> dict[str, Any]:
    part = config.get("text_config") or config.get("llm_config") or config
    thinker = config.get("thinker_config")
    return dict(thinker["text_config"] if thinker else part)


def _with(config: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return _replaced(config, {**_text(config), **more})


def _replaced(config: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    if "thinker_config" in config:
        return {**config, "thinker_config": {**config["thinker_config"], "text_config": text}}
    for key in ("text_config", "llm_config"):
        if key in config:
            return {**config, key: text}
    return text
