"""Every small fleet lives through its plan: no name is without an instance, from whatever state it starts."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from testing.rollout_world import Edge, Engine, World, live

if TYPE_CHECKING:
    from collections.abc import Sequence

A, B, AB = frozenset("a"), frozenset("b"), frozenset("ab")
NONE: frozenset[str] = frozenset()

# live, wanted, names, wanted names, whether it serves
STATES = [
    ("1", "1", A, A, True),
    ("1", "1", A, A, False),
    ("1", "2", A, A, True),
    ("1", "2", A, A, False),
    ("1", "2", A, AB, True),
    ("1", "2", AB, A, True),
    ("1", "2", A, B, True),
    ("1", "2", B, A, False),
    ("1", None, A, NONE, True),
    (None, "2", NONE, A, False),
    (None, "2", NONE, B, False),
]
FLAGS = ["", "operator", "rollout", "weight"]
WAYS = [("drain", "same"), ("beside", "same"), ("beside", "restarts"), ("drain", "moves")]
KINDS = [
    (state, flag, way)
    for state, flag, way in itertools.product(STATES, FLAGS, WAYS)
    if (state[0] or (not flag and way[1] == "same")) and (state[1] or way[1] == "same")
]


def world_of(kinds: Sequence[tuple[str, tuple[tuple, str, tuple[str, str]]]], edges: int = 1) -> World:  # type: ignore[type-arg]
    engines: dict[str, Engine] = {}
    fleet = World(engines, {f"edge{number}": Edge() for number in range(edges)})
    for number, (host, ((live_, wanted, names, wanted_names, serves), flag, (way, entry))) in enumerate(kinds):
        label = f"{host}:i{number}"
        engines[label] = Engine(host, live_, wanted, names, wanted_names, serves, way, entry)
        for edge in fleet.edges.values():
            if live_:
                edge.table[label] = (names, False)
            if flag:
                edge.flags[label] = flag
    return fleet


def check(fleet: World) -> None:
    plan = fleet.plan()
    assert plan == fleet.plan()
    changing = {engine.host for label, engine in fleet.engines.items() if not engine.right}
    assert changing <= {*plan.first, *plan.order}
    assert len(plan.first + plan.order) == len({*plan.first, *plan.order})
    assert sum(plan.serial) == len(plan.order)
    assert plan.serial[:1] in ([], [1])
    assert {*plan.unchanged, *plan.first, *plan.order} == {engine.host for engine in fleet.engines.values()}
    if plan.refused:
        assert all(problem.text and problem.hosts for problem in plan.problems)
        fleet.consent = "a window was agreed on"
    lived = live(fleet)
    assert not lived.lost, plan
    assert fleet.settled(), plan


def test_every_kind_of_host_beside_another() -> None:
    for first, second in itertools.product(KINDS, KINDS[::13]):
        check(world_of([("h0", first), ("h1", second)]))


@pytest.mark.parametrize(
    ("state", "wrong"),
    [(("1", "2", A, A, True), {"serial": [2]}), (("1", "2", AB, A, True), {"edges_before": False})],
    ids=["a batch too large", "edges too late"],
)
def test_a_wrong_plan_is_found_out(state: Any, wrong: dict[str, Any]) -> None:
    def fleet() -> World:
        other = ("1", "1", AB, AB, True)
        third = [("h2", (other, "", WAYS[0]))] if "edges_before" in wrong else []
        return world_of([("h0", (state, "", WAYS[0])), ("h1", (state, "", WAYS[0])), *third])

    assert not live(fleet()).lost
    assert live(fleet(), dataclasses.replace(fleet().plan(), **wrong)).lost


def random_world(seed: int) -> World:
    chance = random.Random(seed)  # noqa: S311 - no secret
    kinds = [(f"h{chance.randrange(4)}", chance.choice(KINDS)) for _ in range(chance.randint(1, 6))]
    fleet = world_of(sorted(kinds, key=lambda kind: kind[0]), edges=chance.randint(1, 2))
    fleet.hold_s = chance.choice([0, 15, 60])
    fleet.steps = chance.choice([[1, "50%"], [3], ["100%"], [1, 2, "100%"]])
    for edge in fleet.edges.values():
        for label in fleet.engines:
            if label in edge.table and chance.random() < 0.2:
                edge.flags[label] = chance.choice(["operator", "rollout", "weight"])
    return fleet


@pytest.mark.parametrize("seeds", [range(start, start + 300) for start in (0, 300)], ids=str)
def test_larger_fleets_of_all_kinds(seeds: range) -> None:
    for seed in seeds:
        check(random_world(seed))


def test_a_controller_that_dies_at_any_step_is_resumed() -> None:
    resumed = 0
    for seed in range(80):
        fleet = random_world(seed)
        fleet.consent = "a window was agreed on" if fleet.plan().refused else ""
        for moment in live(fleet, keep=True).moments:
            resumed += 1
            check(moment)
    assert resumed > 1000
