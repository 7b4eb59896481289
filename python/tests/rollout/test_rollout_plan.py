"""The plan of a rollout: order, batches, what it holds, refuses and says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rackserve.errors import InputError
from rackserve.rollout import How, RolloutPlan, batch_size, parse_input, parse_steps, rollout_plan


def instance(name: str = "a", **changed: Any) -> dict[str, Any]:
    """Return an instance that serves `m` and is to change by a drain."""
    usual = {
        "name": name,
        "live": "1",
        "wanted": "2",
        "live_names": ["m"],
        "wanted_names": ["m"],
        "serves": True,
        "start_s": 40,
        "edges": {"edge1": {"state": "in"}},
    }
    return {**usual, **changed}


SAME = {"wanted": "1"}


def host(name: str, *instances: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {"name": name, "instances": list(instances) or [instance()], **changed}


def plan(*hosts: dict[str, Any], **changed: Any) -> RolloutPlan:
    return rollout_plan(parse_input({"run": "r2", "hosts": list(hosts), "edges": ["edge1"], **changed}))


def fleet(size: int) -> list[dict[str, Any]]:
    return [host(f"gpu{number}") for number in range(1, size + 1)]


def problem(*hosts: dict[str, Any], **changed: Any) -> str:
    found = plan(*hosts, **changed)
    assert found.refused
    assert len(found.problems) == 1
    assert not plan(*hosts, **changed, consent="agreed").refused
    return found.problems[0].text


def test_one_host_then_shares() -> None:
    found = plan(*fleet(9))
    assert found.order == [f"gpu{number}" for number in range(1, 10)]
    assert found.serial == [1, 2, 2, 2, 2]
    assert found.batches[1] == ["gpu2", "gpu3"]
    assert not found.problems


@pytest.mark.parametrize(
    ("steps", "sizes"),
    [
        ([1, "50%"], [1, 5, 4]),
        ([3], [1, 3, 3, 3]),
        (["100%"], [1, 9]),
        ([1, 2, "30%"], [1, 2, 3, 3, 1]),
        ("25%", [1, 2, 2, 2, 2, 1]),
        ("1", [1] * 10),
        (["5%"], [1] * 10),
    ],
)
def test_steps(steps: object, sizes: list[int]) -> None:
    idle = host("gpu0", instance(**SAME))
    assert plan(*fleet(10), idle, steps=steps).serial == sizes


@pytest.mark.parametrize("wrong", [[], 0, -1, "0%", "101%", "a", True, 1.5, [1, None], [[1]], ""])
def test_wrong_steps_are_refused(wrong: object) -> None:
    with pytest.raises(InputError, match=r"stack_rollout_steps.*\[1, \"25%\"\]|stack_rollout_steps: .* of \["):
        parse_steps(wrong)


def test_the_last_step_is_repeated() -> None:
    assert [batch_size(parse_steps([2, "20%"]), 10, number) for number in range(4)] == [1, 2, 2, 2]


def test_what_is_right_is_left_alone() -> None:
    found = plan(host("gpu1", instance(**SAME)), host("gpu2", instance(**SAME)))
    assert (found.first, found.order, found.serial, found.rows) == ([], [], [], [])
    assert found.unchanged == ["gpu1", "gpu2"]


def test_hosts_that_serve_nothing_come_first_and_all_at_once() -> None:
    new = [host(f"new{n}", instance(live=None, live_names=[], serves=False, edges={})) for n in range(3)]
    failed = host("failed", instance(serves=False))
    found = plan(*fleet(2), *new, failed)
    assert found.first == ["new0", "new1", "new2", "failed"]
    assert found.order == ["gpu1", "gpu2"]
    assert [(row.batch, row.how) for row in found.rows[:2]] == [(0, How.STARTED)] * 2


def test_a_batch_ends_before_the_last_instance_of_a_name() -> None:
    pair = [instance(live_names=["n"], wanted_names=["n"])]
    found = plan(host("gpu1", *pair), host("gpu2"), host("gpu3", *pair), host("gpu4"), steps=["100%"])
    assert found.batches == [["gpu1"], ["gpu2", "gpu3"], ["gpu4"]]
    assert not found.problems


def test_an_instance_that_an_operator_drained_is_no_other_instance() -> None:
    drained = host("gpu2", instance(**SAME, edges={"edge1": {"state": "operator"}}))
    assert problem(host("gpu1"), drained).startswith("'m' would have no instance in rotation while gpu1:a is changed")
    assert not plan(host("gpu1"), host("gpu2", instance(**SAME))).problems


def test_one_edge_without_the_other_instance_is_enough() -> None:
    both = {"edge1": {"state": "in"}, "edge2": {"state": "in"}}
    hosts = [
        host("gpu1", instance(edges=both)),
        host("gpu2", instance(**SAME, edges={**both, "edge2": {"state": "operator"}})),
    ]
    assert "gpu1:a" in problem(*hosts, edges=["edge1", "edge2"])


class TestOneInstance:
    """A name that one instance serves."""

    def test_beside_loses_nothing(self) -> None:
        found = plan(host("gpu1", instance(way="beside")))
        assert not found.problems
        assert [(row.how, row.restarted, row.lossless) for row in found.rows] == [(How.BESIDE, [], True)]
        assert found.held == []

    def test_a_short_start_is_held(self) -> None:
        found = plan(host("gpu1"), hold_s=60, drain_s=10, gates_s=5)
        assert not found.problems
        assert found.held == ["gpu1:a"]
        assert [(row.how, row.restarted, row.lossless) for row in found.rows] == [(How.HELD, ["engine"], True)]

    def test_a_long_start_needs_consent(self) -> None:
        text = problem(host("gpu1"), hold_s=50, drain_s=10, gates_s=5)
        assert "that takes about 55 s, and the edges hold requests for 50 s" in text
        assert "set nginx_hold_timeout to 55 or more" in text

    def test_an_unknown_start_needs_consent(self) -> None:
        text = problem(host("gpu1", instance(start_s=None)), hold_s=600)
        assert "is not known, because no start of gpu1:a is on record" in text

    def test_an_entry_that_restarts_is_drained(self) -> None:
        assert "gpu1:a" in problem(host("gpu1", instance(way="beside", entry="restarts")))

    def test_consent_is_a_reason(self) -> None:
        assert plan(host("gpu1"), consent="  ").refused
        found = plan(host("gpu1"), consent="window of 3 May")
        assert found.consent == "window of 3 May"
        assert [row.lossless for row in found.rows] == [False]


def test_added_names_reach_the_edges_after_the_hosts() -> None:
    more = [host(f"gpu{n}", instance(wanted_names=["m", "lora"])) for n in (1, 2)]
    found = plan(*more)
    assert (found.edges_before, found.problems) == (False, [])
    assert found.rows[0].what == ["served names +lora"]


def test_removed_names_leave_the_edges_before_the_hosts_change() -> None:
    less = [host(f"gpu{n}", instance(live_names=["m", "old"])) for n in (1, 2)]
    found = plan(*less)
    assert (found.edges_before, found.problems) == (True, [])
    assert found.names_before == {"gpu1:a": ["m"], "gpu2:a": ["m"]}
    assert found.notes == [
        "the edges forget 'old' before the first host changes, because no instance is to serve it",
    ]


def test_a_name_that_moves_to_a_new_host_reaches_the_edges_in_between() -> None:
    new = host("gpu2", instance(live=None, live_names=[], serves=False, edges={}))
    source = host("gpu1", instance(live_names=["m", "x"], wanted_names=["x"], way="beside"))
    found = plan(source, new)
    assert (found.first, found.edges_before, found.problems) == (["gpu2"], True, [])


def test_a_new_host_takes_the_requests_of_the_only_one() -> None:
    new = host("gpu2", instance(live=None, live_names=[], serves=False, edges={}))
    found = plan(host("gpu1"), new)
    assert (found.edges_before, found.problems, found.held) == (True, [], [])


def test_a_name_that_moves_between_hosts_that_serve_is_two_runs() -> None:
    source = host("gpu1", instance(live_names=["m", "x"], wanted_names=["x"]))
    target = host("gpu2", instance(live_names=["y"], wanted_names=["m", "y"]))
    third = host("gpu3", instance(live_names=["x", "y"], wanted_names=["x", "y"]))
    assert "in one run let another instance serve the name too" in problem(source, target, third)


def test_an_instance_that_moves_is_back_when_the_edges_know() -> None:
    found = plan(host("gpu1", instance(entry="moves")), host("gpu2"))
    assert found.back_after_edges == ["gpu1:a"]
    assert "the address or port of a part" in problem(
        host("gpu1", instance(entry="moves")), host("gpu2", instance(entry="moves"))
    )


def test_the_only_instance_is_not_removed_while_others_wait() -> None:
    gone = host("gpu1", instance(wanted=None, wanted_names=[]), instance("b", live_names=["n"], wanted_names=["n"]))
    other = host("gpu2", instance(**SAME), instance("b", **SAME, live_names=["n"], wanted_names=["n"]))
    found = plan(gone, other)
    assert not found.problems
    assert [(row.instance, row.how) for row in found.rows] == [("a", How.REMOVED), ("b", How.DRAINED)]


class TestAfterADeadRun:
    """What a controller left that died."""

    def left(self, state: str = "rollout", **changed: Any) -> dict[str, Any]:
        return instance(edges={"edge1": {"state": state, "run": "r1"}}, **changed)

    def test_the_generation_before_is_taken_back_at_once(self) -> None:
        found = plan(host("gpu1"), host("gpu2"), host("gpu3", self.left()))
        assert found.take_back == ["gpu3:a"]
        assert found.order == ["gpu3", "gpu1", "gpu2"]

    @pytest.mark.parametrize("state", ["rollout", "weight"])
    def test_the_wanted_generation_proves_itself(self, state: str) -> None:
        found = plan(host("gpu1", instance(**SAME)), host("gpu2", self.left(state, **SAME)))
        assert (found.take_back, found.first, found.order) == ([], [], ["gpu2"])
        assert [(row.how, row.restarted, row.what) for row in found.rows] == [
            (How.PROVED, [], ["left by a run that died"])
        ]

    def test_what_does_not_serve_is_not_of_the_first_hosts(self) -> None:
        found = plan(host("gpu1", instance(**SAME)), host("gpu2", self.left(serves=False)))
        assert (found.first, found.order) == ([], ["gpu2"])

    def test_an_operators_drain_stays(self) -> None:
        found = plan(host("gpu1", instance(**SAME)), host("gpu2", self.left("operator", **SAME)))
        assert (found.take_back, found.order) == ([], [])

    def test_what_is_not_in_this_run_is_said(self) -> None:
        found = plan(host("gpu1", instance(**SAME)), host("gpu2", self.left(serves=None), selected=False))
        assert found.left == ["gpu2"]
        assert "gpu2:a was left out of rotation by the run r1" in found.notes[0]
        assert "rackserve undrain gpu2:a" in found.notes[0]


def test_a_host_outside_the_limit_counts_by_what_the_edge_says() -> None:
    other = instance(live=None, wanted=None, live_names=[], serves=None)
    assert not plan(host("gpu1"), host("gpu2", other, selected=False)).problems
    assert "gpu1:a" in problem(host("gpu1"), host("gpu2", other, reachable=False))


def test_edges_do_not_route_to_what_this_run_leaves_behind() -> None:
    behind = instance(live_names=["x"], wanted_names=["m", "x"])
    text = problem(host("gpu1"), host("gpu2"), host("gpu3", behind, selected=False))
    assert "requests for 'm' to gpu3:a, which does not serve it yet" in text
    assert "--limit" in text


def test_a_site_without_an_edge_cannot_drain() -> None:
    assert "the site has no edge" in problem(host("gpu1", instance(edges={})), edges=[])
    assert not plan(host("gpu1", instance(edges={}, way="beside")), edges=[]).problems


def test_an_edge_that_was_not_reached_cannot_drain() -> None:
    assert "edge2 could not be reached" in problem(*fleet(2), unreached_edges=["edge2"])
    assert not plan(host("gpu1", instance(**SAME)), unreached_edges=["edge2"]).problems


def test_seconds() -> None:
    found = plan(*fleet(3), drain_s=10, gates_s=5, soak_s=60, steps=[1, "100%"])
    assert [row.seconds for row in found.rows] == [115] * 3
    assert (found.seconds, found.unknown) == (230, [])
    assert plan(*fleet(2), host("gpu3", instance(start_s=None))).unknown == ["gpu3:a"]


def test_two_instances_of_a_host_share_drain_and_gates() -> None:
    both = host("gpu1", instance(), instance("b"))
    assert plan(both, host("gpu2", instance(**SAME)), drain_s=10, soak_s=60).seconds == 150


def test_what_changes_is_in_words() -> None:
    found = plan(host("gpu1", instance(changes=["max_num_seqs 8 -> 16"], entry="restarts")), host("gpu2"))
    assert found.rows[0].what == ["max_num_seqs 8 -> 16", "entry: who may connect"]
    assert found.rows[0].restarted == ["engine", "entry"]
    assert found.rows[1].what == ["generation 1 -> 2"]


@pytest.mark.parametrize(("pause", "number"), [("gpu3", 2), ("1", 1), ("", None), (" 2 ", 2)])
def test_a_pause(pause: str, number: int | None) -> None:
    assert plan(*fleet(5), steps=[1, 2], pause_after=pause).pause_after == number


@pytest.mark.parametrize("pause", ["gpu9", "7"])
def test_a_pause_after_nothing_is_refused(pause: str) -> None:
    with pytest.raises(InputError, match=f"stack_rollout_pause_after is '{pause}'.*up to 3, or one of gpu1, gpu2"):
        plan(*fleet(5), steps=[1, 2], pause_after=pause)
    assert plan(host("gpu1", instance(**SAME)), pause_after=pause).pause_after is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "'hosts' is missing"),
        ({"hosts": [], "step": 1}, "unknown key 'step'"),
        ({"hosts": [host("g"), host("g")]}, "the host g is there twice"),
        ({"hosts": [host("g", instance(), instance())]}, "the instance g:a is there twice"),
        ({"hosts": [], "hold_s": -1}, "hold_s"),
    ],
)
def test_wrong_input_is_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_input(raw)


NEW_MACHINE: dict[str, Any] = {"live": None, "live_names": [], "serves": False}


def test_a_machine_that_was_replaced_serves_nothing_although_the_edges_list_it() -> None:
    found = plan(host("gpu1", instance(**NEW_MACHINE)), host("gpu2"))
    assert (found.first, found.order, found.problems) == (["gpu1"], ["gpu2"], [])
    assert not found.edges_before
    assert problem(host("gpu1", instance(**NEW_MACHINE)), host("gpu2"), edges=[]).startswith("the site has no edge")


def test_a_machine_with_another_address_counts_when_the_edges_know_it() -> None:
    elsewhere = instance(**NEW_MACHINE, edges={"edge1": {"state": "in", "reaches": False}})
    found = plan(host("gpu1", elsewhere), host("gpu2"))
    assert (found.first, found.edges_before, found.problems) == (["gpu1"], True, [])
    assert found.names_before == {"gpu1:a": ["m"], "gpu2:a": ["m"]}


def test_the_drain_of_an_operator_outlives_the_machine() -> None:
    drained = instance(**NEW_MACHINE, edges={"edge1": {"state": "operator"}})
    assert plan(host("gpu1", drained)).first == ["gpu1"]
    assert problem(host("gpu1", drained), host("gpu2")).startswith("'m' would have no instance in rotation while gpu2")


def test_the_drain_of_a_rollout_makes_a_new_machine_prove_itself() -> None:
    left = instance(**NEW_MACHINE, edges={"edge1": {"state": "rollout", "run": "r1"}})
    found = plan(host("gpu1", left), host("gpu2", instance(**SAME)))
    assert (found.first, found.order, [row.how for row in found.rows]) == ([], ["gpu1"], [How.STARTED])


def test_the_role_does_every_kind_of_change_that_a_plan_has() -> None:
    role = (Path(__file__).parents[3] / "roles/rollout/vars/main.yml").read_text(encoding="utf-8")
    assert [how for how in How if f"'{how.value}'" not in role] == []
