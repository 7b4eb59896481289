"""Who starts after whom, and where an engine is reached."""

from __future__ import annotations

from typing import Any

from rackserve.vllm import engine_address, parse_instances, start_plan


def plan(gpus: dict[str, list[int | str]], *, serial: bool = False) -> dict[str, dict[str, Any]]:
    model = {"repo": "o/m", "revision": "0" * 40}
    raw = [{"name": n, "model": model, "max_num_seqs": 1, "max_model_len": 64, "gpus": g} for n, g in gpus.items()]
    return start_plan(parse_instances(raw), serial=serial)


def test_instances_of_one_gpu_start_in_the_order_of_the_inventory() -> None:
    found = plan({"a": [0], "b": [1], "c": [0, 1]})
    assert found["a"] == {"after": [], "restart_sec": 5}
    assert found["b"]["after"] == []
    assert found["c"]["after"] == ["vllm@a.service", "vllm@b.service"]


def test_those_that_died_together_do_not_queue_at_the_same_moment() -> None:
    waits = [entry["restart_sec"] for entry in plan({"a": [0], "b": [0], "c": [0]}).values()]
    assert waits == [5, 8, 11]


def test_instances_without_a_gpu_start_together_unless_asked() -> None:
    assert plan({"a": [], "b": []})["b"]["after"] == []
    assert plan({"a": [], "b": []}, serial=True)["b"]["after"] == ["vllm@a.service"]


def test_an_engine_is_reached_where_its_own_file_says() -> None:
    assert engine_address({"uds": "/run/vllm-a/api.sock", "port": 1}) == "/run/vllm-a/api.sock"
    assert engine_address({"host": "127.0.0.1", "port": 8000}) == "127.0.0.1:8000"
