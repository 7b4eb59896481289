"""Every repository that an argument names is in the bundle, is copied, and is named by its path on the host."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.vllm import Instance, snapshots_of
from rackserve.vllm._references import reference_problems, with_references

MODEL, OTHER, THIRD = (("o/m", "0" * 40), ("o/other", "1" * 40), ("o/third", "2" * 40))
PATH = f"/hf/hub/models--o--other/snapshots/{'1' * 40}"


def instance(**extra: Any) -> Instance:
    arguments = {name.replace("_", "-"): value for name, value in extra.items()}
    raw = {"name": "a", "model": {"repo": "o/m", "revision": "0" * 40}, "max_num_seqs": 1, "max_model_len": 8}
    return Instance.model_validate({**raw, "extra_args": arguments})


@pytest.mark.parametrize(
    ("extra", "after"),
    [
        ({"tokenizer": "o/other"}, {"tokenizer": PATH}),
        ({"tokenizer": "o/other", "tokenizer_revision": "1" * 40}, {"tokenizer": PATH}),
        ({"hf_config_path": "o/other"}, {"hf-config-path": PATH}),
        ({"generation_config": "o/other"}, {"generation-config": PATH}),
        ({"speculative_model": "o/other"}, {"speculative-model": PATH}),
        ({"speculative_config": {"model": "o/other", "k": 1}}, {"speculative-config": {"model": PATH, "k": 1}}),
        ({"speculative_config": '{"model": "o/other"}'}, {"speculative-config": {"model": PATH}}),
        ({"default_mm_loras": {"audio": "o/other"}}, {"default-mm-loras": {"audio": PATH}}),
        ({"speculative-config.model": "o/other"}, {"speculative-config.model": PATH}),
    ],
)
def test_a_repository_of_the_bundle_becomes_a_path(extra: dict[str, Any], after: dict[str, Any]) -> None:
    subject = instance(**extra)
    assert reference_problems(subject, [MODEL, OTHER]) == []
    assert snapshots_of(subject, [MODEL, OTHER, THIRD]) == {MODEL, OTHER}
    assert with_references(subject, [MODEL, OTHER], "/hf").extra_args == after
    (problem,) = reference_problems(subject, [MODEL])
    assert "is o/other" in problem
    assert "which is not in the bundle; add it to models in bundle.yml and build the bundle again" in problem


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"generation_config": "vllm"},
        {"generation_config": "auto"},
        {"tokenizer": "/srv/tokenizer"},
        {"speculative_model": "[ngram]"},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}},
        {"speculative_config": {"method": "mtp"}},
        {"tokenizer": "o/m"},
        {"hf_overrides": {"architectures": ["X"]}},
    ],
)
def test_a_path_a_word_or_the_model_itself_needs_no_other(extra: dict[str, Any]) -> None:
    subject = instance(**extra)
    assert reference_problems(subject, [MODEL]) == []
    assert snapshots_of(subject, [MODEL, OTHER]) == {MODEL}


def test_of_two_commits_one_has_to_be_named() -> None:
    carried = [MODEL, OTHER, ("o/other", "3" * 40)]
    (problem,) = reference_problems(instance(tokenizer="o/other"), carried)
    assert f"of which the bundle has {'1' * 40}, {'3' * 40}; leave one of them in bundle.yml" in problem
    subject = instance(tokenizer="o/other", tokenizer_revision="3" * 40)
    assert reference_problems(subject, carried) == []
    assert ("o/other", "3" * 40) in snapshots_of(subject, carried)
    (problem,) = reference_problems(instance(tokenizer="o/other", tokenizer_revision="4" * 40), carried)
    assert f"is o/other at {'4' * 40}, which is not in the bundle" in problem
