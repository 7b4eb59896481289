"""The five states, and what is done in each: sequences of probe runs."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.programs.vllm_probe import (
    STATES,
    Observation,
    Record,
    Settings,
    counted,
    decide,
    exposition,
    same_answer,
)

SETTINGS = Settings("/run/vllm-a/api.sock", "m", start_budget_s=100.0)
BEGAN = 10_000.0
EVERY_S = 10.0

UP = Observation("active", "one", BEGAN - 500)
TOKEN = UP._replace(token=True, listener=True, advanced=True)
FROZEN = UP._replace(listener=True)
MOVING = UP._replace(listener=True, advanced=True)
STARVED = FROZEN._replace(waited=83.0)
WRONG = TOKEN._replace(golden=False)
RIGHT = TOKEN._replace(golden=True)
SILENT = UP
DRAINED = TOKEN._replace(drained=True)
NEXT: dict[str, Any] = {"invocation": "two", "started": BEGAN + 40}

Story = list[tuple[Observation, str, list[str]]]


def follow(
    observations: list[Observation], last: Record | None = None, settings: Settings = SETTINGS
) -> list[tuple[Record, Any]]:
    found = []
    record = last or Record()
    for step, seen in enumerate(observations):
        record, actions = decide(record, seen, settings, BEGAN + EVERY_S * step)
        found.append((record, actions))
    return found


STORIES: dict[str, Story] = {
    "an instance that serves is left alone": [(TOKEN, "ready", []), (TOKEN, "ready", [])],
    "one that starts is left alone": [
        (UP._replace(unit="activating"), "starting", []),
        (UP._replace(unit="activating", detail="later"), "starting", []),
        (TOKEN, "ready", []),
    ],
    "a unit that is reloading starts": [(UP._replace(unit="reloading"), "starting", [])],
    "one that is stopped, drains or failed is called that": [
        (UP._replace(unit="inactive"), "stopped", []),
        (UP._replace(unit="deactivating"), "stopped", []),
        (UP._replace(unit="failed"), "failed", []),
    ],
    "one without a listener starts, within its budget": [
        (SILENT._replace(started=BEGAN - 85), "starting", []),
        (SILENT._replace(started=BEGAN - 85), "starting", []),
        (SILENT._replace(started=BEGAN - 85), "hung", ["close"]),
    ],
    "one that served and has no listener any more does not start": [(TOKEN, "ready", []), (SILENT, "hung", ["close"])],
    "one that does not answer within its budget, but listens, does not start": [
        (FROZEN._replace(started=BEGAN - 1), "hung", ["close"])
    ],
    "one that freezes is closed at once and restarted at the third probe run": [
        (TOKEN, "ready", []),
        (FROZEN, "hung", ["close"]),
        (FROZEN, "hung", []),
        (FROZEN, "hung", ["restart"]),
        (FROZEN._replace(unit="activating"), "starting", []),
        (TOKEN._replace(invocation="two", started=BEGAN + 40), "ready", []),
    ],
    "one that is saturated stays in rotation, however long": [(MOVING, "busy", [])] * 40,
    "one that waits for a CPU half of the time stays in rotation": [
        (FROZEN._replace(waited=50.0), "busy", []),
        (STARVED, "busy", []),
        (STARVED, "busy", []),
        (STARVED, "busy", []),
        (TOKEN, "ready", []),
    ],
    "one that waits for a CPU less than that is hung": [
        (FROZEN._replace(waited=49.9), "hung", ["close"]),
        (FROZEN._replace(waited=49.9), "hung", []),
        (FROZEN._replace(waited=49.9), "hung", ["restart"]),
    ],
    "one that waits for a CPU is not left alone for ever": [
        *[(STARVED, "busy", [])] * 30,
        (STARVED, "hung", ["close"]),
        (STARVED, "hung", []),
        (STARVED, "hung", ["restart"]),
        (STARVED._replace(invocation="two", started=BEGAN + 40), "busy", []),
    ],
    "one that hangs in between is not left alone more often for it": [
        *[(STARVED, "busy", [])] * 29,
        (FROZEN, "hung", ["close"]),
        (STARVED, "busy", ["open"]),
        (STARVED, "hung", ["close"]),
        (STARVED, "hung", []),
        (STARVED, "hung", ["restart"]),
    ],
    "one that moves in between is left alone from the beginning again": [
        *[(STARVED, "busy", [])] * 30,
        (MOVING, "busy", []),
        *[(STARVED, "busy", [])] * 30,
        (TOKEN, "ready", []),
        *[(STARVED, "busy", [])] * 30,
        (STARVED, "hung", ["close"]),
    ],
    "one that waits for a CPU and moves between two probe runs is left alone, however long": [
        (STARVED._replace(counter=float(step)), "busy", []) for step in range(60)
    ],
    "one that moved in between is counted from the beginning again": [
        (FROZEN, "hung", ["close"]),
        (FROZEN, "hung", []),
        (MOVING, "busy", ["open"]),
        (FROZEN, "hung", ["close"]),
        (FROZEN, "hung", []),
        (FROZEN, "hung", ["restart"]),
    ],
    "one that moved between two probe runs is counted from the beginning again": [
        (FROZEN._replace(counter=5.0), "hung", ["close"]),
        (FROZEN._replace(counter=5.0), "hung", []),
        (FROZEN._replace(counter=6.0), "hung", []),
        (FROZEN._replace(counter=6.0), "hung", []),
        (FROZEN._replace(counter=6.0), "hung", ["restart"]),
    ],
    "one whose counters cannot be read any more is hung": [
        (FROZEN._replace(counter=5.0), "hung", ["close"]),
        (FROZEN, "hung", []),
        (FROZEN, "hung", ["restart"]),
    ],
    "one that thaws serves again": [
        (FROZEN, "hung", ["close"]),
        (FROZEN, "hung", []),
        (TOKEN, "ready", ["open"]),
        (TOKEN, "ready", []),
    ],
    "one that never serves after its restart waits for the budget to end": [
        (FROZEN, "hung", ["close"]),
        (FROZEN, "hung", []),
        (FROZEN, "hung", ["restart"]),
        *[(FROZEN._replace(**NEXT), "hung", ["close"])],
        *[(FROZEN._replace(**NEXT), "hung", [])] * 8,
        (FROZEN._replace(**NEXT), "hung", ["restart"]),
    ],
    "one that served after its restart is restarted again": [
        (FROZEN, "hung", ["close"]),
        (FROZEN, "hung", []),
        (FROZEN, "hung", ["restart"]),
        (TOKEN._replace(**NEXT), "ready", []),
        (FROZEN._replace(**NEXT), "hung", ["close"]),
        (FROZEN._replace(**NEXT), "hung", []),
        (FROZEN._replace(**NEXT), "hung", ["restart"]),
    ],
    "wrong answers close the proxy and restart nothing": [
        (RIGHT, "ready", []),
        (WRONG, "corrupt", ["close"]),
        *[(TOKEN, "corrupt", [])] * 3,
        *[(FROZEN, "corrupt", [])] * 5,
    ],
    "a new start of wrong weights is judged anew": [
        (WRONG, "corrupt", ["close"]),
        (UP._replace(unit="activating", invocation="two"), "starting", []),
        (RIGHT._replace(**NEXT), "ready", []),
    ],
    "a start of weights that are still wrong is closed again": [
        (WRONG, "corrupt", ["close"]),
        (WRONG._replace(**NEXT), "corrupt", ["close"]),
    ],
    "a proxy that the operator drained is not opened": [
        (FROZEN, "hung", ["close"]),
        (DRAINED, "ready", []),
        (MOVING._replace(drained=True), "busy", []),
        (TOKEN, "ready", ["open"]),
    ],
    "a proxy that somebody else closed is not opened": [(DRAINED, "ready", []), (TOKEN, "ready", [])],
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_a_sequence_of_probe_runs(story: Story) -> None:
    found = follow([seen for seen, _, _ in story])
    assert [(record.state, actions) for record, actions in found] == [(state, acts) for _, state, acts in story]


def test_a_restart_is_possible_before_the_clock_was_set_back() -> None:
    last = Record(restarted=BEGAN + 9_999)
    assert follow([FROZEN] * 3, last)[-1][1] == ["restart"]


def test_what_was_decided_is_counted() -> None:
    observations = [FROZEN, FROZEN, FROZEN, *[FROZEN] * 4, MOVING, TOKEN]
    record = follow(observations)[-1][0]
    assert record.decisions == {"close": 1, "restart": 1, "restart_suppressed": 2, "open": 1, "skip_busy": 1}


def test_a_skip_of_what_waits_for_a_cpu_is_counted() -> None:
    record = follow([STARVED] * 31)[-1][0]
    assert record.decisions == {"skip_busy": 30, "close": 1}


def test_since_when_a_state_holds_and_when_the_last_token_came() -> None:
    records = [record for record, _ in follow([TOKEN, TOKEN, FROZEN, FROZEN])]
    assert [record.since for record in records] == [BEGAN, BEGAN, BEGAN + 20, BEGAN + 20]
    assert {record.last_token for record in records} == {BEGAN, BEGAN + 10}


def test_a_comparison_that_was_not_made_is_due_still() -> None:
    records = [record for record, _ in follow([RIGHT, TOKEN])]
    assert [record.golden_compared for record in records] == [BEGAN, BEGAN]


@pytest.mark.parametrize(
    ("tokens", "logprobs", "same"),
    [
        (["a", "b"], [0.0, -1.0], True),
        (["a", "b"], [0.0, -1.29], True),
        (["a", "b"], [0.0, -1.31], False),
        (["a", "c"], [0.0, -1.0], False),
        (["a"], [0.0], False),
        (["a", "b"], [0.0, float("nan")], False),
    ],
)
def test_an_answer_of_the_same_weights(tokens: list[str], logprobs: list[float], same: bool) -> None:  # noqa: FBT001
    kept = {"tokens": ["a", "b"], "logprobs": [0.0, -1.0]}
    assert same_answer(kept, {"tokens": tokens, "logprobs": logprobs}, 0.3) is same


def test_counters_of_all_ranks_are_added() -> None:
    page = (
        '# TYPE a counter\na{engine="0"} 3.0\na{engine="1"} 4.0\na_created{engine="0"} 1.7e+09\n'
        'ab{x="a b"} 9\nb 2\n'
    )  # fmt: skip
    assert counted(page, ("a",)) == 7.0
    assert counted(page, ("a", "b")) == 9.0
    assert counted(page, ("c",)) is None
    assert counted("", ("a",)) is None


def test_exactly_one_state_is_shown() -> None:
    text = exposition("a", "m", follow([FROZEN] * 3)[-1][0])
    states = {line for line in text.splitlines() if line.startswith("rackserve_instance_state{")}
    assert len(states) == len(STATES)
    assert [line for line in states if line.endswith(" 1")] == [
        'rackserve_instance_state{vllm_instance="a",model="m",state="hung"} 1'
    ]
    assert 'rackserve_instance_probe_restarts_total{vllm_instance="a",model="m"} 1' in text.splitlines()
