"""What the probe is told, and what makes an answer another model's."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.instances import Instance
from rackserve.probe import settings_of
from rackserve.probe.vllm_probe import Settings

RUNTIME = {"vllm": "0.32.0", "flavour": "cpu"}


def instance(**more: Any) -> Instance:
    model = {"repo": "o/m", "revision": more.pop("revision", "0" * 40), "served_names": ["m"]}
    return Instance.model_validate({"name": "a", "model": model, "max_num_seqs": 1, "max_model_len": 64, **more})


def identity(runtime: dict[str, str] | None = None, **more: Any) -> str:
    return str(settings_of(instance(**more), "/s", runtime or RUNTIME, 600)["golden_identity"])


def test_the_probe_knows_every_key_that_it_is_told() -> None:
    told = Settings(**settings_of(instance(), "/run/vllm-a/api.sock", RUNTIME, 600))
    assert (told.engine, told.model, told.start_budget_s) == ("/run/vllm-a/api.sock", "m", 600.0)


@pytest.mark.parametrize(
    "change",
    [{"revision": "1" * 40}, {"dtype": "float16"}, {"quantization": "fp8"}, {"kv_cache_dtype": "fp8"}, {"gpus": [1]}],
)
def test_what_changes_the_answer_changes_its_identity(change: dict[str, Any]) -> None:
    assert identity(**change) != identity()


def test_another_release_has_another_identity() -> None:
    assert identity({**RUNTIME, "vllm": "0.33.0"}) != identity()


@pytest.mark.parametrize("change", [{"max_num_seqs": 9}, {"max_model_len": 32}, {"prefix_caching": False}])
def test_what_does_not_change_the_answer_keeps_its_identity(change: dict[str, Any]) -> None:
    assert identity(**change) == identity()
