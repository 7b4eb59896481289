"""What was planned and read of a host is told to the plan of a rollout, in words that an operator reads."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.rollout import parse_input, rollout_plan
from rackserve.rollout._observe import changed_words, observed_hosts

CONFIG = {"model": "o/m", "revision": "1", "max-num-seqs": 8, "uds": "/run/vllm-a.01/api.sock"}
LIVE = {
    "name": "a",
    "digest": "01",
    "runtime": "/opt/vllm/releases/0.31.0-aa",
    "served_names": ["m"],
    "config": CONFIG,
    "environment": "e",
    "probe": "p",
    "settings": "s",
}
GIB = 1 << 30


def wanted(**changes: Any) -> dict[str, Any]:
    return {
        "name": "a",
        "digest": "02",
        "unit": "vllm@a.02.service",
        "listener": "vllm-proxy@a.socket",
        "runtime": LIVE["runtime"],
        "served_names": ["m"],
        "config": {**CONFIG, "uds": "/run/vllm-a.02/api.sock"},
        "engine": "/run/vllm-a.02/api.sock",
        "environment": {},
        "url": "http://10.0.0.5:8000",
        "digests": {"environment": "e", "probe": "p", "settings": "s"},
        **changes,
    }


def found(**changes: Any) -> dict[str, Any]:
    there = {"live": "01", "active": True, "seconds": 51.5, "generation": LIVE, "memory": 4 * GIB}
    return {"instances": {"a": there}, "stale": [], "available": 8 * GIB, "gpus": [], **changes}


def observed(want: dict[str, Any] | None, there: dict[str, Any], **changes: Any) -> dict[str, Any]:
    hostvars = {"gpu1": {"__vllm_plan": {"instances": [want] if want else []}, "__rollout_found": there}}
    options = {"edges": {}, "beside": True, **changes}
    (host,) = observed_hosts(hostvars, ["gpu1"], ["gpu1"], ["gpu1"], options["edges"], beside=options["beside"])
    (instance,) = host["instances"]
    return dict(instance)


def test_an_instance_is_told_with_both_generations() -> None:
    one = observed(wanted(served_names=["m", "n"]), found())
    assert (one["live"], one["wanted"], one["live_names"], one["wanted_names"]) == ("01", "02", ["m"], ["m", "n"])
    assert (one["serves"], one["start_s"], one["entry"]) == (True, 51.5, "same")


def test_a_new_one_and_a_removed_one_have_one_generation() -> None:
    new = observed(wanted(), {**found(), "instances": {}})
    assert (new["live"], new["wanted"], new["serves"], new["way"]) == (None, "02", False, "drain")
    gone = observed(None, found())
    assert (gone["live"], gone["wanted"], gone["changes"]) == ("01", None, [])


def test_a_host_that_was_not_reached_has_nothing() -> None:
    (host,) = observed_hosts({"gpu1": {}}, ["gpu1"], ["gpu1"], [], {}, beside=True)
    assert host == {"name": "gpu1", "selected": True, "reachable": False, "instances": []}


@pytest.mark.parametrize("weight", [100, 0])
def test_a_host_outside_the_limit_counts_by_what_the_edges_say(weight: int) -> None:
    alone = weight == 0
    marks = [] if weight else [{**mark("rollout", 0), "label": "gpu2:a"}]
    weights = {"gpu1:a": 100, "gpu2:a": weight, "gpu2:b": weight}
    edge = {"weights": weights, "after": marks, "names": {"gpu1:a": ["m"], "gpu2:a": ["m"], "gpu2:b": ["n"]}}
    hostvars = {"gpu1": {"__vllm_plan": {"instances": [wanted()]}, "__rollout_found": found()}, "gpu2": {}}
    hosts = observed_hosts(hostvars, ["gpu1", "gpu2"], ["gpu1"], ["gpu1"], {"edge1": edge}, beside=False)
    plan = rollout_plan(parse_input({"hosts": hosts, "edges": ["edge1"]}))
    assert (bool(plan.problems), plan.order, plan.left) == (alone, ["gpu1"], ["gpu2"])
    assert [note for note in plan.notes if "gpu2:a was left out" in note] if alone else plan.notes == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"config": {**CONFIG, "max-num-seqs": 16}}, ["max-num-seqs 8 -> 16"]),
        ({"config": {**CONFIG, "seed": 1}}, ["seed unset -> 1"]),
        ({"runtime": "/opt/vllm/releases/0.32.0-bb"}, ["vLLM 0.31.0-aa -> 0.32.0-bb"]),
        ({"digests": {"environment": "x", "probe": "p", "settings": "y"}}, ["its environment", "its unit"]),
    ],
)
def test_changes_are_told_in_words(changes: dict[str, Any], words: list[str]) -> None:
    assert changed_words(LIVE, wanted(**changes)) == words


def test_a_long_value_is_cut() -> None:
    (text,) = changed_words(LIVE, wanted(config={**CONFIG, "x": "y" * 100}))
    assert text == f"x unset -> {'y' * 60}..."


def test_files_that_were_changed_by_hand_and_an_old_listener_are_told() -> None:
    one = observed(wanted(), found(stale=["vllm@a.02.service", "vllm-proxy@a.socket"]))
    assert (one["changes"], one["entry"]) == (["its files were changed by hand"], "restarts")
    assert (one["live"], one["way"]) == ("01, changed by hand", "drain"), "the same unit cannot run twice"


ROOM = {"index": "0", "uuid": "GPU-1", "free": 50 * GIB, "total": 100 * GIB}


@pytest.mark.parametrize(
    ("want", "there", "way"),
    [
        ({}, {}, "beside"),
        ({}, {"available": 4 * GIB}, "drain"),
        ({"engine": "127.0.0.1:8000"}, {}, "drain"),
        ({"config": {"gpu-memory-utilization": 0.4}, "environment": {"CUDA_VISIBLE_DEVICES": "GPU-1"}}, {}, "drain"),
        (
            {"config": {"gpu-memory-utilization": 0.4}, "environment": {"CUDA_VISIBLE_DEVICES": "GPU-1"}},
            {"gpus": [ROOM]},
            "beside",
        ),
        (
            {"config": {"gpu-memory-utilization": 0.4}, "environment": {"CUDA_VISIBLE_DEVICES": "0"}},
            {"gpus": [ROOM]},
            "beside",
        ),
        (
            {"config": {"gpu-memory-utilization": 0.6}, "environment": {"CUDA_VISIBLE_DEVICES": "GPU-1"}},
            {"gpus": [ROOM]},
            "drain",
        ),
        (
            {"config": {"gpu-memory-utilization": 0.4}, "environment": {"CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2"}},
            {"gpus": [ROOM]},
            "drain",
        ),
        ({"config": {"gpu-memory-utilization": 0.4}, "environment": {}}, {"gpus": [ROOM]}, "drain"),
    ],
)
def test_a_second_engine_has_to_fit_host_and_gpus(want: dict[str, Any], there: dict[str, Any], way: str) -> None:
    assert observed(wanted(**want), found(**there))["way"] == way
    assert observed(wanted(**want), found(**there), beside=False)["way"] == "drain"


def mark(by: str, weight: int) -> dict[str, Any]:
    return {"label": "gpu1:a", "by": by, "weight": weight, "run": "r1"}


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"weights": {}}, {"state": "absent"}),
        ({"weights": {"gpu1:a": 100}, "after": []}, {"state": "in"}),
        ({"weights": {"gpu1:a": 0}, "after": [mark("operator", 0)]}, {"state": "operator"}),
        ({"weights": {"gpu1:a": 0}, "after": [mark("rollout", 0)]}, {"state": "rollout", "run": "r1"}),
        ({"weights": {"gpu1:a": 5}, "after": [mark("rollout", 5)]}, {"state": "weight", "run": "r1"}),
        ({"weights": {"gpu1:a": 0}, "after": [mark("rollout", 5), mark("operator", 0)]}, {"state": "operator"}),
    ],
)
def test_the_rotation_of_an_instance_is_told(state: dict[str, Any], told: dict[str, Any]) -> None:
    assert observed(wanted(), found(), edges={"edge1": state})["edges"] == {"edge1": told}


def test_an_edge_with_another_address_means_that_the_entry_moves() -> None:
    for address, entry in (("10.0.0.5:8000", "same"), ("10.0.0.5:8001", "moves")):
        edge = {"weights": {"gpu1:a": 100}, "after": [], "addresses": {"gpu1:a": address}}
        assert observed(wanted(), found(), edges={"edge1": edge})["entry"] == entry


def test_a_machine_that_was_replaced_is_reached_where_the_edges_have_its_address() -> None:
    there = {**found(), "instances": {}}
    for address, told in (("10.0.0.5:8000", {"state": "in"}), ("10.0.0.4:8000", {"state": "in", "reaches": False})):
        edge = {"weights": {"gpu1:a": 100}, "after": [], "addresses": {"gpu1:a": address}}
        one = observed(wanted(), there, edges={"edge1": edge})
        assert (one["entry"], one["serves"], one["edges"]["edge1"]) == ("same", False, told)
