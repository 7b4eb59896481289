"""Who starts after whom, and where an engine listens."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.vllm import config_of, engine_address, parse_instances, release_of, start_plan

MODEL = {"repo": "o/m", "revision": "0" * 40}


def plan(gpus: dict[str, list[int | str]], *, serial: bool = False) -> dict[str, dict[str, Any]]:
    raw = [{"name": n, "model": MODEL, "max_num_seqs": 1, "max_model_len": 64, "gpus": g} for n, g in gpus.items()]
    return start_plan(parse_instances(raw), serial=serial)


def test_instances_of_one_gpu_start_in_the_order_of_the_inventory() -> None:
    found = plan({"a": [0], "b": [1], "c": [0, 1]})
    assert found["a"] == {"after": [], "restart_sec": 5}
    assert found["b"]["after"] == []
    assert found["c"]["after"] == ["a", "b"]


def test_those_that_died_together_do_not_queue_at_the_same_moment() -> None:
    waits = [entry["restart_sec"] for entry in plan({"a": [0], "b": [0], "c": [0]}).values()]
    assert waits == [5, 8, 11]


def test_instances_without_a_gpu_start_together_unless_asked() -> None:
    assert plan({"a": [], "b": []})["b"]["after"] == []
    assert plan({"a": [], "b": []}, serial=True)["b"]["after"] == ["a"]


@pytest.mark.parametrize(
    ("version", "address", "listens"),
    [
        ("0.32.0", "/run/vllm-a.0d/api.sock", {"uds": "/run/vllm-a.0d/api.sock"}),
        ("0.6.4.post1", "127.0.0.1:8000", {"host": "127.0.0.1", "port": 8000}),
    ],
)
def test_an_engine_listens_where_the_others_look_for_it(version: str, address: str, listens: dict[str, Any]) -> None:
    (instance,) = parse_instances([{"name": "a", "model": MODEL, "max_num_seqs": 1, "max_model_len": 64}])
    release = release_of(version)
    config = config_of(instance, release, flavour="cpu", engine=address, shutdown_timeout=1)
    assert engine_address(instance, release, "0d") == address
    assert {key: config[key] for key in ("uds", "host", "port") if key in config} == listens
