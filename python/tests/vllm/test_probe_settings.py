"""The settings of the probe, and the identity of a golden answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rackserve.programs import vllm_probe
from rackserve.programs.vllm_probe import Settings
from rackserve.vllm import Instance, probe_settings

RUNTIME = {"vllm": "0.32.0", "flavour": "cpu"}


def instance(**more: Any) -> Instance:
    model = {"repo": "o/m", "revision": more.pop("revision", "0" * 40), "served_names": ["m"]}
    return Instance.model_validate({"name": "a", "model": model, "max_num_seqs": 1, "max_model_len": 64, **more})


def identity(runtime: dict[str, str] | None = None, **more: Any) -> str:
    return str(probe_settings(instance(**more), "/s", runtime or RUNTIME, 600)["golden_identity"])


def test_the_probe_knows_every_setting() -> None:
    settings = Settings(**probe_settings(instance(), "/run/vllm-a/api.sock", RUNTIME, 600))
    assert (settings.engine, settings.model, settings.start_budget_s) == ("/run/vllm-a/api.sock", "m", 600.0)


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "1" * 40},
        {"dtype": "float16"},
        {"quantization": "fp8"},
        {"kv_cache_dtype": "fp8"},
        {"gpus": [1]},
        {"extra_args": {"logprobs-mode": "raw_logits"}},
        {"extra_args": {"return-tokens-as-token-ids": True}},
    ],
)
def test_what_changes_the_answer_changes_its_identity(change: dict[str, Any]) -> None:
    assert identity(**change) != identity()


def test_an_instance_with_adapters_is_asked_otherwise_and_known_as_that() -> None:
    adapter = {"name": "x", "repo": "o/x", "revision": "2" * 40}
    settings = Settings(**probe_settings(instance(lora=[adapter]), "/s", RUNTIME, 600))
    assert settings.adapters
    assert settings.golden_identity == f"{identity()} asked=next"


def test_what_does_not_generate_is_asked_for_its_own_work_and_compared_with_nothing() -> None:
    settings = Settings(**probe_settings(instance(task="embed"), "/s", RUNTIME, 600))
    assert (settings.task, settings.golden_identity) == ("embed", "")


@pytest.mark.parametrize(
    ("task", "answer", "works"),
    [
        ("generate", {"usage": {"completion_tokens": 1}}, True),
        ("generate", {"usage": {"completion_tokens": 0}}, False),
        ("generate", {"usage": None}, False),
        ("embed", {"data": [{"embedding": [0.5, 0.1]}]}, True),
        ("embed", {"data": [{"embedding": []}]}, False),
        ("embed", {"data": [{"embedding": [None]}]}, False),
        ("score", {"data": [{"score": 0.0}]}, True),
        ("score", {"data": []}, False),
    ],
)
def test_only_an_answer_with_its_work_in_it_counts(
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    answer: dict[str, Any],
    works: bool,  # noqa: FBT001 - a table row
) -> None:
    asked: list[str] = []

    def answer_it(_settings: Settings, path: str, _body: object, _timeout: float) -> tuple[int, str]:
        asked.append(path)
        return 200, json.dumps(answer)

    monkeypatch.setattr(vllm_probe, "ask", answer_it)
    assert vllm_probe.ask_token(Settings("/s", "m", (), task), 1)[0] is works
    paths = {"generate": "/v1/completions", "embed": "/v1/embeddings", "score": "/v1/score"}
    assert asked == [paths[task]]


def test_another_release_has_another_identity() -> None:
    assert identity({**RUNTIME, "vllm": "0.33.0"}) != identity()


@pytest.mark.parametrize("change", [{"max_num_seqs": 9}, {"max_model_len": 32}, {"prefix_caching": False}])
def test_what_does_not_change_the_answer_keeps_its_identity(change: dict[str, Any]) -> None:
    assert identity(**change) == identity()
