"""Each kind of bad engine is caught by exactly the gate that should, and good ones by none; against stand-ins."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.ansible.modules import vllm_gates
from testing.stand_in_vllm import Traits, engine

if TYPE_CHECKING:
    from collections.abc import Mapping

asks = vllm_gates.asks  # type: ignore[attr-defined] # under the name that the module uses
IDENTITY = "model=o/m@1 vllm=0.32.0+cpu dtype=bfloat16 quantization=none kv=auto gpus=none"
CASE = {"name": "greeting", "prompt": "Greet me.", "max_tokens": 8, "expect": {"contains": "Hello"}}


class Clock:
    """Times of answers that no machine takes part in: those of an engine whose host is busy now and then."""

    def __init__(self) -> None:
        self.random = random.Random(11)  # noqa: S311 - no secret
        self.slower, self.load = 1.0, 0.0

    def timed(self, engine: Any, _: int) -> dict[str, float]:
        step = self.slower * (1 + abs(self.random.gauss(0, 0.1))) * (1.8 if self.random.random() < 0.5 else 1.0)
        row = {"load": self.load, "first_ms": 40 * step}
        more = {"between_ms": 10 * step, "p95_ms": 12 * step * (1 + abs(self.random.gauss(0, 0.05)))}
        return row if engine.settings.task != "generate" else {**row, **more}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Times that the test chooses; what real ones look like is measured in docs/measurements/gates.md."""
    found = Clock()
    monkeypatch.setattr(asks, "timed", found.timed)
    return found


def options(address: str, **more: Any) -> dict[str, Any]:
    return {
        "engine": address,
        "instance": "gpu1:a",
        "model": "m",
        "task": "generate",
        "adapters": False,
        "tool_parser": "hermes",
        "identity": IDENTITY,
        "template": "",
        "before": {},
        "speed": "with",
        "cases": [],
        "slower_percent": 20.0,
        "requests": 20,
        "golden_tolerance": 0.3,
        "timeout": 10.0,
        "seconds": 60.0,
        **more,
    }


def measured(traits: Traits | None = None, **more: Any) -> dict[str, Any]:
    with engine(traits or Traits()) as address:
        return vllm_gates.measure(options(address, **more))


def judged(traits: Traits, before: Mapping[str, Any], **more: Any) -> dict[str, dict[str, Any]]:
    with engine(traits) as address:
        return {one["name"]: one for one in vllm_gates.judge(options(address, before=before, **more))}


def verdicts(gates: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: one["ok"] for name, one in gates.items()}


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asks, "timed", Clock().timed)
        return measured()


GOOD = {"token": True, "golden": True, "cases": None, "tools": True, "template": True, "errors": True, "speed": True}


@pytest.mark.usefixtures("clock")
def test_a_good_engine_passes_every_gate(before: dict[str, Any]) -> None:
    said = {"Greet me.": "Hello there"}
    found = judged(Traits(said=said), before, cases=[CASE])
    assert verdicts(found) == {**GOOD, "cases": True}, found
    assert all(one["line"].startswith(f"gpu1:a: {name}: ") and "\n" not in one["line"] for name, one in found.items())


BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "altered weights": ("golden", {"shift": 0.6}),
    "another family's template": ("template", {"template": "alpaca"}),
    "a template of foreign tokens": ("template", {"template": "foreign"}),
    "a template without roles": ("template", {"template": "one_role"}),
    "a template of contents only": ("template", {"template": "contents"}),
    "a template without the end": ("template", {"template": "no_generation"}),
    "a template of the last message": ("template", {"template": "last"}),
    "no template": ("template", {"template": "none", "tools": "silent"}),
    "answers do not end": ("template", {"answers": "endless"}),
    "answers with parts of a template": ("template", {"answers": "markers"}),
    "tool calls are left in the text": ("tools", {"tools": "raw"}),
    "tool calls are left in the text of streams": ("tools", {"tools": "raw_stream"}),
    "arguments are not JSON": ("tools", {"tools": "broken"}),
    "arguments do not fit": ("tools", {"tools": "unfit"}),
    "500 to one in fifty": ("errors", {"failing": 0.02}),
    "503 to one in fifty": ("errors", {"failing": 0.02, "status": 503}),
}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("same_template", [True, False], ids=["same template", "template changed"])
@pytest.mark.parametrize(("gate", "traits"), BAD.values(), ids=BAD)
def test_a_bad_engine_is_caught_by_the_gate_that_should(
    before: dict[str, Any], gate: str, traits: dict[str, Any], *, same_template: bool
) -> None:
    found = judged(
        Traits(**traits), before, template="" if same_template else "other", requests=230 if gate == "errors" else 20
    )
    failed = {name for name, one in found.items() if one["ok"] is False}
    assert failed == ({gate, "tools"} if traits.get("template") == "none" else {gate}), found


def test_an_engine_that_is_thirty_percent_slower_is_caught_by_its_speed(before: dict[str, Any], clock: Clock) -> None:
    clock.slower = 1.3
    found = judged(Traits(), before)
    assert verdicts(found) == {**GOOD, "speed": False}, found
    assert "slower: first token" in found["speed"]["line"]


@pytest.mark.usefixtures("clock")
def test_the_speed_is_judged_with_the_other_gates_or_apart(before: dict[str, Any]) -> None:
    assert verdicts(judged(Traits(), before, speed="alone")) == {"speed": True}
    assert verdicts(judged(Traits(), before, speed="without")) == {key: GOOD[key] for key in GOOD if key != "speed"}


def test_times_are_those_of_the_engine() -> None:
    """Three times as slow, which the most starved machine tells."""
    steps: dict[str, Any] = {"first_s": 0.05, "gap_s": 0.01}
    with engine(Traits(**steps)) as one, engine(Traits(**steps, slower=3.0, others=2)) as other:
        engines = [vllm_gates.engine_of(options(address)) for address in (one, other)]
        rows = [asks.timed(each, 1) for each in engines]
    for row, slower in zip(rows, (1, 3), strict=True):
        assert row is not None
        assert row["first_ms"] >= 45 * slower
        assert row["between_ms"] >= 8 * slower
        assert row["p95_ms"] >= row["between_ms"]
        assert row["load"] == (0 if slower == 1 else 2)


@pytest.mark.usefixtures("clock")
def test_an_engine_without_a_token_is_asked_for_nothing_else(before: dict[str, Any]) -> None:
    traits = Traits(silent=True)
    found = judged(traits, before)
    assert verdicts(found) == {**dict.fromkeys(GOOD), "token": False}
    assert len(traits.requests) == 3


@pytest.mark.usefixtures("clock")
def test_a_case_of_the_site_is_caught(before: dict[str, Any]) -> None:
    found = judged(Traits(), before, cases=[CASE])
    assert verdicts(found) == {**GOOD, "cases": False}
    assert "greeting: the answer 'yes' does not contain 'Hello'" in found["cases"]["line"]


@pytest.mark.usefixtures("clock")
def test_a_new_instance_is_judged_alone() -> None:
    found = judged(Traits(), {})
    assert verdicts(found) == {**GOOD, "golden": None, "speed": None}
    assert verdicts(judged(Traits(tools="raw"), {}))["tools"] is False
    assert verdicts(judged(Traits(template="last"), {}))["template"] is False


@pytest.mark.usefixtures("clock")
def test_other_weights_are_not_compared(before: dict[str, Any]) -> None:
    found = judged(Traits(shift=0.6, template="alpaca"), before, identity=IDENTITY.replace("m@1", "m@2"))
    assert verdicts(found) == {**GOOD, "golden": None}
    assert "model changed" in found["golden"]["line"]


@pytest.mark.usefixtures("clock")
def test_another_release_of_the_same_weights_is_compared(before: dict[str, Any]) -> None:
    identity = IDENTITY.replace("0.32.0", "0.33.0")
    assert verdicts(judged(Traits(jitter=0.02), before, identity=identity)) == GOOD
    assert verdicts(judged(Traits(shift=0.6), before, identity=identity))["golden"] is False


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("adapters", [False, True])
def test_the_golden_answer_of_an_engine_with_adapters_is_compared(*, adapters: bool) -> None:
    was = measured(adapters=adapters)
    assert was["golden"]["kind"] == ("next" if adapters else "echo")
    assert verdicts(judged(Traits(), was, adapters=adapters))["golden"] is True
    assert verdicts(judged(Traits(shift=0.6), was, adapters=adapters))["golden"] is False


@pytest.mark.parametrize("task", ["embed", "score"])
def test_a_pooling_engine_is_compared(clock: Clock, task: str) -> None:
    was = measured(task=task, tool_parser="")
    good = {**GOOD, "tools": None, "template": None}
    assert verdicts(judged(Traits(), was, task=task, tool_parser="")) == good
    assert verdicts(judged(Traits(shift=0.6), was, task=task, tool_parser="")) == {**good, "golden": False}
    clock.slower = 1.3
    slow = judged(Traits(), was, task=task, tool_parser="")
    assert verdicts(slow) == {**good, "speed": False}


@pytest.mark.usefixtures("clock")
def test_a_parser_is_tested_where_the_model_calls_nothing_by_itself() -> None:
    """The lab's small model calls no tool; its answer is dictated."""
    silent: dict[str, Any] = {"tools": "silent"}
    was = measured(Traits(**silent))
    assert {one["kind"] for key, one in was["tools"].items() if key.startswith("prompt")} == {"silent"}
    assert {one["kind"] for key, one in was["tools"].items() if key.startswith("written")} == {"called"}
    found = judged(Traits(**silent, dictates=False), was)
    assert verdicts(found)["tools"] is False
    assert verdicts(judged(Traits(**silent), was))["tools"] is True
    neither = Traits(**silent, dictates=False)
    assert verdicts(judged(neither, measured(neither)))["tools"] is None


@pytest.mark.usefixtures("clock")
def test_tool_calls_that_were_never_right_are_no_fault_of_the_new_engine() -> None:
    was = measured(Traits(tools="raw"))
    assert verdicts(judged(Traits(tools="raw"), was))["tools"] is None


def test_nothing_is_said_of_speed_under_another_load(clock: Clock) -> None:
    clock.load = 4.0
    was = measured()
    clock.load = 0.0
    found = judged(Traits(), was)
    assert verdicts(found) == {**GOOD, "speed": None}
    assert "less load than before" in found["speed"]["line"]
    clock.slower = 1.5
    assert verdicts(judged(Traits(), was))["speed"] is False


@pytest.mark.usefixtures("clock")
def test_an_engine_before_that_gives_no_token_is_no_measure() -> None:
    was = measured(Traits(silent=True))
    assert was["token"] is False
    assert verdicts(judged(Traits(), was)) == {**GOOD, "golden": None, "speed": None}


@pytest.mark.usefixtures("clock")
def test_twenty_good_engines_stop_nothing(before: dict[str, Any]) -> None:
    for seed in range(20):
        traits = Traits(random=random.Random(seed), noise=0.1, jitter=0.01)  # noqa: S311 - no secret
        found = judged(traits, before)
        assert not [one["line"] for one in found.values() if one["ok"] is False]
