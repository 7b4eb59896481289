"""Another driver is planned as a rollout: who leaves the rotation for it, who is given back, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.rollout import RolloutPlan, driver_hosts, driver_labels, parse_input, rollout_plan
from testing.rollout_world import generation

OTHER = {"words": ["driver 570.1 -> 580.1"], "seconds": 1200}


def read(*, active: bool = True, change: dict[str, Any] | None = None) -> dict[str, Any]:
    there = {"live": "01", "active": active, "seconds": 40.0, "listens": "10.0.0.5:1", "before": {}}
    there["generation"] = generation()
    return {"__rollout_found": {"instances": {"a": there}, "stale": []}, "__nvidia_driver_change": change}


def mark(label: str, by: str, run: str = "", weight: int = 0) -> dict[str, Any]:
    return {"label": label, "by": by, "run": run, "weight": weight}


def edge(*marks: dict[str, Any], labels: tuple[str, ...] = ("gpu1:a", "gpu2:a")) -> dict[str, Any]:
    weights = {**dict.fromkeys(labels, 100), **{one["label"]: one["weight"] for one in marks}}
    names = {label: ["m"] for label in labels}
    return {"weights": weights, "after": list(marks), "names": names, "addresses": dict.fromkeys(labels, "10.9.9.9:1")}


def plan(hosts: dict[str, Any], at_edge: dict[str, Any], reached: list[str] | None = None) -> RolloutPlan:
    asked = list(hosts) if reached is None else reached
    told = driver_hosts(hosts, list(hosts), asked, asked, {"edge1": at_edge})
    return rollout_plan(parse_input({"hosts": told, "edges": ["edge1"], "steps": [1], "hold_s": 60}))


def labels(found: RolloutPlan, host: str, at_edge: dict[str, Any]) -> dict[str, list[str]]:
    rows = [{"host": row.host, "instance": row.instance} for row in found.rows]
    return driver_labels({"rows": rows, "take_back": found.take_back}, host, {"edge1": at_edge})


def test_one_host_at_a_time_and_only_those_that_change() -> None:
    hosts = {"gpu1": read(change=OTHER), "gpu2": read(change=OTHER), "gpu3": read()}
    found = plan(hosts, edge(labels=("gpu1:a", "gpu2:a", "gpu3:a")))
    assert (found.order, found.serial, found.problems, found.held) == (["gpu1", "gpu2"], [1, 1], [], [])
    assert (found.unchanged, found.rows[0].what) == (["gpu3"], ["driver 570.1 -> 580.1"])
    assert found.rows[0].seconds == 1240


def test_nothing_is_planned_where_no_driver_changes() -> None:
    found = plan({"gpu1": read(), "gpu2": read(active=False), "cpu1": read(change={"words": []})}, edge())
    assert (found.order, found.first, found.rows, found.problems) == ([], [], [], [])


def test_a_host_that_serves_nothing_is_not_drained() -> None:
    assert plan({"gpu1": read(active=False, change=OTHER), "gpu2": read()}, edge()).order == []


def test_the_last_instance_of_a_name_is_a_problem_whatever_its_start_takes() -> None:
    (problem,) = plan({"gpu1": read(change=OTHER)}, edge(labels=("gpu1:a",))).problems
    assert "while gpu1:a is changed; that takes about 1240 s, and the edges hold requests for 60 s" in problem.text


@pytest.mark.parametrize(("weight", "problems"), [(100, 0), (0, 1)])
def test_a_host_outside_the_limit_counts(weight: int, problems: int) -> None:
    at_edge = edge(*([] if weight else [mark("gpu2:a", "operator")]))
    assert len(plan({"gpu1": read(change=OTHER), "gpu2": {}}, at_edge, ["gpu1"]).problems) == problems


@pytest.mark.parametrize("active", [True, False])
def test_what_a_dead_run_left_after_the_change_is_given_back_first(*, active: bool) -> None:
    at_edge = edge(mark("gpu2:a", "rollout", "driver-1"))
    found = plan({"gpu1": read(change=OTHER), "gpu2": read(active=active)}, at_edge)
    assert (found.order, found.take_back, found.problems) == (["gpu2", "gpu1"], [], [])
    assert labels(found, "gpu2", at_edge) == {"out": [], "back": ["gpu2:a"]}


def test_what_a_dead_run_left_before_the_change_serves_until_its_turn() -> None:
    at_edge = edge(mark("gpu1:a", "rollout", "driver-1"))
    found = plan({"gpu1": read(change=OTHER), "gpu2": read()}, at_edge)
    assert (found.order, found.take_back) == (["gpu1"], ["gpu1:a"])
    assert labels(found, "gpu1", at_edge) == {"out": ["gpu1:a"], "back": ["gpu1:a"]}


@pytest.mark.parametrize("weight", [0, 5])
def test_the_mark_of_a_rollout_is_not_taken_away(weight: int) -> None:
    at_edge = edge(mark("gpu1:a", "rollout", "20270131T120000Z", weight))
    assert plan({"gpu1": read(), "gpu2": read()}, at_edge).rows == []
    found = plan({"gpu1": read(change=OTHER), "gpu2": read()}, at_edge)
    assert (found.order, found.take_back) == (["gpu1"], [])
    assert labels(found, "gpu1", at_edge) == {"out": ["gpu1:a"] if weight else [], "back": []}
    assert plan({"gpu1": read(), "gpu2": read(change=OTHER)}, at_edge).problems, "gpu1 is no help before it is proved"


def test_a_share_that_an_operator_left_an_instance_is_no_dead_run() -> None:
    at_edge = edge(mark("gpu1:a", "operator", weight=5))
    assert plan({"gpu1": read(), "gpu2": read()}, at_edge).rows == []


def test_an_operator_has_drained_the_host_already() -> None:
    at_edge = edge(mark("gpu1:a", "operator"))
    found = plan({"gpu1": read(change=OTHER), "gpu2": read()}, at_edge)
    assert (found.order, found.problems) == (["gpu1"], [])
    assert labels(found, "gpu1", at_edge)["out"] == []
