"""What a release would refuse is refused before anything changes, with the value found and what to set."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.vllm import parse_instances, release_of, validate_release

MODEL = {"repo": "o/m", "revision": "0" * 40}
UUIDS = [f"GPU-{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "ab"]


def problems(version: str, *changes: dict[str, Any]) -> list[str]:
    raw = [
        {"name": name, "model": MODEL, "max_num_seqs": 4, "max_model_len": 128, **change}
        for name, change in zip("abc", changes, strict=False)
    ]
    return validate_release(parse_instances(raw), release_of(version))


@pytest.mark.parametrize(
    ("version", "change", "said"),
    [
        (
            "0.32.0",
            {"extra_args": {"swap-space": 4}},
            "extra_args.swap-space is 4, which vLLM 0.32.0 does not have: it went after 0.10.2; leave it out",
        ),
        ("0.32.0", {"extra_args": {"rope-theta": 1}}, "it went after 0.10.2; set hf-overrides"),
        ("0.6.4.post1", {"task": "score"}, "task is 'score', which vLLM 0.6.4.post1 does not have"),
        ("0.26.0", {"extra_args": {"disable-log-requests": True}}, "only 0.6.4.post1, 0.10.2, 0.33.0 have it"),
        ("0.26.0", {"extra_args": {"max-num-queued-reqs": 9}}, "is 9, which vLLM 0.26.0 does not have: it came after"),
        ("0.6.4.post1", {"api_server_count": 2}, "api_server_count is 2, which vLLM 0.6.4.post1 does not have"),
        ("0.6.4.post1", {"extra_args": {"enforce-eager": False}}, "no --no-enforce-eager; leave it out"),
        ("0.6.4.post1", {"model": {**MODEL, "served_names": ["a b"]}}, "'a b' must be on the command line"),
        ("0.10.2", {"kv_cache_dtype": "nvfp4"}, "kv_cache_dtype is 'nvfp4', which vLLM 0.10.2 does not have; set one"),
        ("0.32.0", {"tool_call_parser": "beam"}, "tool_call_parser is 'beam', which vLLM 0.32.0 does not have; set"),
    ],
)
def test_what_the_release_lacks_is_refused(version: str, change: dict[str, Any], said: str) -> None:
    (problem,) = problems(version, change)
    assert problem.startswith("instance 'a': ")
    assert said in problem


@pytest.mark.parametrize(
    ("version", "change"),
    [
        ("0.10.2", {"extra_args": {"swap-space": 4}}),
        ("0.33.0", {"extra_args": {"disable-log-requests": True}}),
        ("0.33.0", {"tool_call_parser": "beam", "kv_cache_dtype": "nvfp4", "api_server_count": 2}),
        ("0.32.0", {"tool_call_parser": "none", "extra_args": {"seed": 1}}),
    ],
)
def test_known_settings_are_accepted(version: str, change: dict[str, Any]) -> None:
    assert problems(version, change) == []


def test_over_allocated_gpu_memory_is_refused() -> None:
    (problem,) = problems("0.32.0", {"gpus": [0], "gpu_memory_utilization": 0.5}, {"gpus": [0]})
    assert problem.startswith(
        "the memory of GPU 0 is over-allocated: a (0.5), b (0.92), together 1.42; set gpu_memory_utilization"
    )


@pytest.mark.parametrize(
    "changes",
    [
        [{"gpus": [0], "gpu_memory_utilization": 0.5}, {"gpus": [0], "gpu_memory_utilization": 0.5}],
        [{"gpus": [0]}, {"gpus": [1]}],
        [{"gpus": [UUIDS[0]]}, {"gpus": [UUIDS[1]]}],
        [{}, {}],
    ],
    ids=["halves", "by index", "by UUID", "no GPU"],
)
def test_gpus_that_are_shared_fairly_or_not_at_all_are_let_through(changes: list[dict[str, Any]]) -> None:
    assert problems("0.32.0", *changes) == []


def test_one_gpu_under_two_spellings_is_one() -> None:
    assert len(problems("0.32.0", {"gpus": [UUIDS[0]]}, {"gpus": [UUIDS[0].replace("a", "A")]})) == 1


def test_indexes_and_uuids_are_not_mixed() -> None:
    (problem,) = problems("0.32.0", {"gpus": [0]}, {"gpus": [UUIDS[0]]})
    assert "gpus of a are indexes and those of b are UUIDs" in problem
    (problem,) = problems("0.32.0", {"gpus": ["0000:3b:00.0"]}, {"gpus": [UUIDS[0]]})
    assert "gpus of a are PCI addresses and those of b are UUIDs" in problem


def test_a_gpu_is_the_same_however_its_address_is_written() -> None:
    (problem,) = problems("0.32.0", {"gpus": ["0000:3b:00.0"]}, {"gpus": ["00000000:3B:00.0"]})
    assert "GPU 0000:3b:00.0 is over-allocated: a (0.92), b (0.92)" in problem
