"""The five states, and what is done in each: sequences of probe runs."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.programs.vllm_probe import (
    STATES,
    Engine,
    Observation,
    Record,
    Settings,
    decide,
    engines_of,
    exposition,
    followed,
    same_answer,
    stands_still,
)

STEPS = ("vllm:iteration_tokens_total_count", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
SETTINGS = Settings("/run/vllm-a/api.sock", "m", STEPS, start_budget_s=100.0)
BEGAN = 10_000.0
EVERY_S = 10.0

UP = Observation("active", "one", BEGAN - 500)
TOKEN = UP._replace(token=True, listener=True, slow=False)
SLOW = UP._replace(listener=True, slow=True, readable=True)
MOVING = SLOW._replace(advanced=True, still=3.0, silent=3.0)
STARVED = SLOW._replace(cpu=83.0)
ERROR = UP._replace(listener=True, readable=True)
WRONG = TOKEN._replace(golden=False)
RIGHT = TOKEN._replace(golden=True)
SILENT = UP
DRAINED = TOKEN._replace(drained=True)
NEXT: dict[str, Any] = {"invocation": "two", "started": BEGAN + 40}


def still(seconds: float, seen: Observation = SLOW) -> Observation:
    """Return a probe run that found the only engine without a step for some seconds."""
    return seen._replace(still=seconds, silent=seconds)


FROZEN = [still(14), still(29), still(44)]

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
        (still(10, SILENT)._replace(started=BEGAN - 85), "starting", []),
        (still(20, SILENT)._replace(started=BEGAN - 85), "starting", []),
        (still(30, SILENT)._replace(started=BEGAN - 85), "hung", ["close"]),
    ],
    "one that served and has no listener any more does not start": [(TOKEN, "ready", []), (SILENT, "hung", ["close"])],
    "one that does not answer within its budget, but listens, does not start": [
        (still(14)._replace(started=BEGAN - 1), "hung", ["close"])
    ],
    "one that stands still is closed, and later restarted": [
        (TOKEN, "ready", []),
        (FROZEN[0], "hung", ["close"]),
        (FROZEN[1], "hung", []),
        (FROZEN[2], "hung", ["restart"]),
        (UP._replace(unit="activating"), "starting", []),
        (TOKEN._replace(invocation="two", started=BEGAN + 40), "ready", []),
    ],
    "one that was seen too late is closed and restarted at once": [(still(40), "hung", ["close", "restart"])],
    "one in a step that is not yet too long stays in rotation": [(still(13.9), "busy", []), (TOKEN, "ready", [])],
    "one that is saturated stays in rotation, however long": [(MOVING, "busy", [])] * 40,
    "one whose page cannot be read is not in a step": [
        (still(12, SLOW._replace(readable=False)), "hung", ["close"]),
        (still(27, SLOW._replace(readable=False)), "hung", []),
        (still(42, SLOW._replace(readable=False)), "hung", ["restart"]),
    ],
    "one that answers errors while others are served stays in rotation": [
        (still(1, ERROR._replace(advanced=True)), "busy", [])
    ],
    "one that answers errors only is closed at once": [
        (still(0, ERROR), "hung", ["close"]),
        (still(39, ERROR), "hung", []),
        (still(40, ERROR), "hung", ["restart"]),
    ],
    "one that waits for a CPU half of the time, or computes on one, stays in rotation": [
        (still(14, SLOW._replace(cpu=50.0)), "busy", []),
        (still(60, STARVED), "busy", []),
        (TOKEN, "ready", []),
    ],
    "one that does so less is hung": [
        (still(14, SLOW._replace(cpu=49.9)), "hung", ["close"]),
        (still(44, SLOW._replace(cpu=49.9)), "hung", ["restart"]),
    ],
    "one that waits for a CPU is not left alone for ever": [
        (still(299.9, STARVED), "busy", []),
        (still(300, STARVED), "hung", ["close", "restart"]),
        (still(14, STARVED._replace(invocation="two", started=BEGAN + 40)), "busy", []),
    ],
    "an error is no want of a CPU": [(still(1, ERROR._replace(cpu=100.0)), "hung", ["close"])],
    "one that moved is counted from the beginning again": [
        (FROZEN[0], "hung", ["close"]),
        (FROZEN[1], "hung", []),
        (MOVING, "busy", ["open"]),
        (FROZEN[0], "hung", ["close"]),
        (FROZEN[1], "hung", []),
        (FROZEN[2], "hung", ["restart"]),
    ],
    "one that thaws serves again": [
        (FROZEN[0], "hung", ["close"]),
        (FROZEN[1], "hung", []),
        (TOKEN, "ready", ["open"]),
        (TOKEN, "ready", []),
    ],
    "a rank with requests that stands still beside ranks that answer is restarted with them": [
        (TOKEN._replace(still=39.9), "ready", []),
        (TOKEN._replace(still=40.0), "hung", ["close", "restart"]),
    ],
    "a rank without requests that may hang is given the time until a restart": [
        (SLOW._replace(still=2.0, silent=39.9), "busy", []),
        (SLOW._replace(still=2.0, silent=40.0), "hung", ["close", "restart"]),
    ],
    "one that never serves after its restart waits for the budget to end": [
        *[(seen, "hung", [["close"], [], ["restart"]][row]) for row, seen in enumerate(FROZEN)],
        (still(44)._replace(**NEXT), "hung", ["close"]),
        *[(still(60)._replace(**NEXT), "hung", [])] * 8,
        (still(200)._replace(**NEXT), "hung", ["restart"]),
    ],
    "one that served after its restart is restarted again": [
        *[(seen, "hung", [["close"], [], ["restart"]][row]) for row, seen in enumerate(FROZEN)],
        (TOKEN._replace(**NEXT), "ready", []),
        (still(14)._replace(**NEXT), "hung", ["close"]),
        (still(44)._replace(**NEXT), "hung", ["restart"]),
    ],
    "wrong answers close the proxy and restart nothing": [
        (RIGHT, "ready", []),
        (WRONG, "corrupt", ["close"]),
        *[(TOKEN, "corrupt", [])] * 3,
        *[(FROZEN[2], "corrupt", [])] * 5,
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
        (FROZEN[0], "hung", ["close"]),
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
    assert follow(FROZEN, last)[-1][1] == ["restart"]


def test_what_was_decided_is_counted() -> None:
    observations = [*FROZEN, still(50), still(60), MOVING, TOKEN]
    record = follow(observations)[-1][0]
    assert record.decisions == {"close": 1, "restart": 1, "restart_suppressed": 2, "open": 1, "skip_busy": 1}


def test_a_skip_of_what_waits_for_a_cpu_is_counted() -> None:
    record = follow([still(20, STARVED), still(40, STARVED), still(300, STARVED)])[-1][0]
    assert record.decisions == {"skip_busy": 2, "close": 1, "restart": 1}


def test_since_when_a_state_holds_and_when_the_last_token_came() -> None:
    records = [record for record, _ in follow([TOKEN, TOKEN, *FROZEN[:2]])]
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


PAGE = """# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 7.0
vllm:iteration_tokens_total_created{engine="0",model_name="m"} 1.7e+09
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 3.0
vllm:num_requests_running{engine="0",model_name="a b"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
http_requests_total{handler="/metrics"} 9.0
"""


def test_a_page_has_the_steps_of_each_engine() -> None:
    assert engines_of(PAGE, SETTINGS, 5.0) == {
        "0": Engine("vllm:iteration_tokens_total_count 7.0; vllm:kv_cache_usage_perc 0.25", 3.0, 5.0),
        "1": Engine("vllm:kv_cache_usage_perc 0.5", 0.0, 5.0),
    }
    assert engines_of("", SETTINGS, 5.0) == {}


def test_the_only_engine_of_a_release_without_ranks() -> None:
    page = 'vllm:gpu_cache_usage_perc{model_name="m"} 0.1\nvllm:num_requests_running{model_name="m"} 1.0\n'
    assert engines_of(page, SETTINGS, 5.0) == {"": Engine("vllm:gpu_cache_usage_perc 0.1", 1.0, 5.0)}


OLD = {"0": Engine("a 1", 1.0, 100.0)}


@pytest.mark.parametrize(
    ("found", "asked", "since"),
    [
        pytest.param(Engine("a 1", 1.0, 110.0), False, 100.0, id="requests, and nothing moved"),
        pytest.param(Engine("a 2", 1.0, 110.0), False, 110.0, id="it moved"),
        pytest.param(Engine("a 1", 0.0, 110.0), False, 110.0, id="nothing to do"),
        pytest.param(Engine("a 1", 0.0, 110.0), True, 100.0, id="the probe waits for its answer"),
    ],
)
def test_since_when_an_engine_stands_still(found: Engine, asked: bool, since: float) -> None:  # noqa: FBT001
    assert followed(OLD, {"0": found}, asked=asked) == {"0": found._replace(still_since=since)}


def test_an_engine_whose_page_cannot_be_read_goes_on_standing_still() -> None:
    assert followed(OLD, {}, asked=False) == OLD


@pytest.mark.parametrize(
    ("engines", "still"),
    [
        pytest.param({"": Engine("a", 0.0, 90.0)}, (10.0, 10.0), id="the only engine"),
        pytest.param({"0": Engine("a", 1.0, 97.0), "1": Engine("a", 0.0, 80.0)}, (3.0, 20.0), id="an idle rank"),
        pytest.param({"0": Engine("a", 1.0, 97.0), "1": Engine("a", 2.0, 60.0)}, (40.0, 40.0), id="a stuck rank"),
        pytest.param({"0": Engine("a", 1.0, 200.0)}, (0.0, 0.0), id="the clock was set back"),
    ],
)
def test_how_long_engines_stand_still(engines: dict[str, Engine], still: tuple[float, float]) -> None:
    assert stands_still(engines, 100.0) == still


def test_exactly_one_state_is_shown() -> None:
    text = exposition("a", "m", follow(FROZEN)[-1][0])
    states = {line for line in text.splitlines() if line.startswith("rackserve_instance_state{")}
    assert len(states) == len(STATES)
    assert [line for line in states if line.endswith(" 1")] == [
        'rackserve_instance_state{vllm_instance="a",model="m",state="hung"} 1'
    ]
    assert 'rackserve_instance_probe_restarts_total{vllm_instance="a",model="m"} 1' in text.splitlines()
