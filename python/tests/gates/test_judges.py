"""What the gates say of answers, without any engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rackserve.ansible.module_utils import rackserve_gate_cases as cases
from rackserve.ansible.module_utils import rackserve_gate_chats as chats
from rackserve.ansible.module_utils import rackserve_gates as gates

ECHO = {"kind": "echo", "tokens": ["a", "b"], "values": [-1.0, -2.0], "stable": True}


def golden(*answers: dict[str, Any], before: dict[str, Any] | None = ECHO, changed: tuple[str, ...] = ()) -> Any:
    return gates.judge_golden("i", before, answers, changed, 0.3)["ok"]


def test_a_golden_answer_may_differ_by_the_tolerance() -> None:
    assert golden({**ECHO, "values": [-1.29, -2.0]}) is True
    assert golden({**ECHO, "values": [-1.31, -2.0]}) is False
    assert golden({**ECHO, "values": [-1.31, -2.0]}, ECHO) is True


@pytest.mark.parametrize("answer", [{"tokens": ["a", "c"]}, {"values": [-1.0]}, {"values": []}])
def test_an_answer_that_cannot_be_laid_beside_the_other_fails(answer: dict[str, Any]) -> None:
    assert golden({**ECHO, **answer}) is False


def test_no_golden_answer_at_all_fails() -> None:
    assert golden() is False


def test_tokens_may_be_written_differently_by_another_release() -> None:
    other = {**ECHO, "tokens": ["a", "Ġb"]}
    assert golden(other) is False
    assert golden(other, changed=("vllm",)) is True


@pytest.mark.parametrize(
    ("before", "changed", "why"),
    [
        (None, (), "no answer of an engine before"),
        (ECHO, ("model", "vllm"), "model changed"),
        ({**ECHO, "stable": False}, (), "two different answers"),
        ({**ECHO, "kind": "next"}, (), "asked in another way"),
    ],
)
def test_what_cannot_be_compared_says_why(before: Any, changed: tuple[str, ...], why: str) -> None:
    found = gates.judge_golden("gpu1:a", before, [ECHO], changed, 0.3)
    assert found["ok"] is None
    assert why in found["line"]


def test_vectors_are_compared_by_their_angle() -> None:
    before = {"kind": "embedding", "tokens": [], "values": [1.0, 0.0], "stable": True}
    assert golden({**before, "values": [2.0, 0.1]}, before=before) is True
    assert golden({**before, "values": [1.0, 0.5]}, before=before) is False


def test_the_parts_of_an_identity_that_changed_are_named() -> None:
    assert gates.changed_parts("model=a vllm=1 dtype=auto", "model=a vllm=2 dtype=auto asked=next") == ["asked", "vllm"]
    assert gates.changed_parts("model=a", "model=a") == []


def test_errors_say_how_probable_it_was_to_see_one_in_fifty() -> None:
    assert gates.judge_errors("i", 230, [])["ok"] is True
    assert "would have been seen with 99.0 %" in gates.judge_errors("i", 230, [])["line"]
    found = gates.judge_errors("i", 230, ["HTTP 500: no"])
    assert (found["ok"], found["line"]) == (False, "i: errors: 1 of 230 requests failed: HTTP 500: no")
    assert gates.judge_errors("i", 0, [])["ok"] is False


def speed(first: float, between: float = 10.0, p95: float = 12.0, **more: float) -> dict[str, Any]:
    return {"answers": 30, "first_ms": first, "between_ms": between, "p95_ms": p95, "load": 0.0, **more}


@pytest.mark.parametrize(
    ("now", "ok"),
    [
        (speed(100), True),
        (speed(120), True),
        (speed(121), False),
        (speed(50, between=12.5), False),
        (speed(100, p95=16), False),
        (speed(150, load=2.0), None),
        (speed(100, load=2.0), True),
        ({"answers": 2, "load": 0.0}, False),
    ],
)
def test_each_figure_of_the_speed_has_its_limit(now: dict[str, Any], ok: Any) -> None:
    assert gates.judge_speed("i", speed(100), now, 20)["ok"] is ok


def test_a_difference_below_a_millisecond_is_not_the_engines() -> None:
    assert gates.judge_speed("i", speed(1.0, 1.0, 1.0), speed(1.9, 1.9, 1.9), 20)["ok"] is True
    assert gates.judge_speed("i", speed(1.0, 1.0, 1.0), speed(2.1, 1.0, 1.0), 20)["ok"] is False


def test_speed_without_figures_before_is_not_compared() -> None:
    assert gates.judge_speed("i", None, speed(1), 20)["ok"] is None
    assert gates.judge_speed("i", {"answers": 3, "load": 0}, speed(1), 20)["ok"] is None


def test_idle_moments_are_preferred() -> None:
    rows = [{"first_ms": 10.0, "load": 0.0}] * 6 + [{"first_ms": 1.0, "load": 3.0}] * 20
    assert gates.speed_of(rows) == {"answers": 6, "first_ms": 10.0, "load": 0.0}
    assert gates.speed_of(rows[5:])["answers"] == 21
    assert gates.speed_of([]) == {"answers": 0, "load": 0.0}


CALL = {"name": "get_weather", "arguments": '{"city": "Paris"}'}


@pytest.mark.parametrize(
    ("text", "calls", "kind"),
    [
        ("", [CALL], "called"),
        ("", [{**CALL, "arguments": '{"city": "Par'}], "invalid"),
        ("", [{**CALL, "arguments": '{"city": 1}'}], "invalid"),
        ("", [{**CALL, "arguments": "{}"}], "invalid"),
        ("", [{**CALL, "name": "weather"}], "invalid"),
        ('<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>', [], "raw"),
        ('[get_weather(city="Paris")]', [], "raw"),
        ("I would call get_weather for you.", [], "silent"),
        ("It is sunny.", [], "silent"),
    ],
)
def test_what_a_request_with_tools_led_to(text: str, calls: list[dict[str, str]], kind: str) -> None:
    assert chats.tool_outcome(text, calls)["kind"] == kind


def test_a_call_that_was_cut_off_says_nothing() -> None:
    assert chats.tool_outcome("", [{**CALL, "arguments": '{"city": "Par'}], cut=True)["kind"] == "silent"


def outcomes(**kinds: str) -> dict[str, dict[str, str]]:
    return {key: {"kind": kind, "detail": "d"} for key, kind in kinds.items()}


@pytest.mark.parametrize(
    ("before", "now", "ok"),
    [
        (None, outcomes(a="called", b="silent"), True),
        (None, outcomes(a="called", b="raw"), False),
        (None, outcomes(a="silent", written="raw"), None),
        (None, outcomes(a="silent"), None),
        (outcomes(a="called"), outcomes(a="invalid"), False),
        (outcomes(a="called"), outcomes(a="refused"), False),
        (outcomes(a="called", b="called"), outcomes(a="silent", b="called"), True),
        (outcomes(a="called"), outcomes(a="silent"), False),
        (outcomes(a="raw"), outcomes(a="raw"), None),
        (outcomes(a="silent"), outcomes(a="raw"), None),
        (outcomes(written="called"), outcomes(written="raw"), False),
    ],
)
def test_tool_calls_may_not_get_worse(before: Any, now: Any, ok: Any) -> None:
    assert chats.judge_tools("i", "hermes", before, now)["ok"] is ok


def test_tools_are_not_compared_where_they_are_off() -> None:
    assert chats.judge_tools("i", "", None, {})["ok"] is None


def test_a_date_in_a_template_is_no_difference() -> None:
    def of(rendered: str) -> dict[str, Any]:
        shape = dict.fromkeys(("complete", "roles", "special", "markers_known", "generation"), True)
        return {"rendered": rendered, "shape": shape, "garbage": [""], "reason": ""}

    before, after = of("Today: 30 Nov 2026, 23:59:59"), of("Today: 1 Dec 2026, 00:00:01")
    assert chats.judge_template("i", before, after, same_template=True)["ok"] is True
    assert chats.judge_template("i", before, of("Now: 1 Dec 2026"), same_template=True)["ok"] is False


@pytest.mark.parametrize(
    ("text", "ended", "good"),
    [
        ("yes", True, True),
        ("", True, False),
        ("yes", False, False),
        ("yes<|im_end|>\n<|im_start|>user", True, False),
        ("yes\n### Instruction:\nmore", True, False),
        ("yes\nuser\nWhat?", True, False),
        ("The user is happy, and 1 < 2.", True, True),
        ("[INST] yes", True, False),
    ],
)
def test_an_answer_with_parts_of_a_template_is_garbage(text: str, *, ended: bool, good: bool) -> None:
    assert (chats.is_garbage(text, ended=ended) == "") is good


TEXTS: list[tuple[dict[str, Any], str, bool]] = [
    ({"contains": "Paris"}, "It is Paris.", True),
    ({"contains": "Paris"}, "It is Lyon.", False),
    ({"regex": r"\bPar[ií]s\b"}, "It is Paris.", True),
    ({"regex": "^Paris$"}, "It is Paris.", False),
    ({"number": {"value": 42, "tolerance": 0.5}}, "6 times 7 is 42.", True),
    ({"number": {"value": 42, "tolerance": 0.5}}, "It is 43.", False),
    ({"number": {"value": 1234.5, "tolerance": 0}}, "It is 1,234.5!", True),
    ({"number": {"value": -3, "tolerance": 0}}, "It is -3", True),
    ({"number": {"value": 1, "tolerance": 0}}, "It is one.", False),
    ({"json_schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', True),
    ({"json_schema": {"type": "object", "required": ["a"]}}, '```json\n{"a": 1}\n```', True),
    ({"json_schema": {"type": "object", "required": ["a"]}}, '{"b": 1}', False),
    ({"json_schema": {"type": "object"}}, "Sure: {}", False),
    ({"contains": "a", "regex": "b"}, "a", False),
]


@pytest.mark.parametrize(("expect", "text", "good"), TEXTS)
def test_a_text_is_what_a_case_expects(expect: dict[str, Any], text: str, *, good: bool) -> None:
    assert (cases.case_problem(expect, {"text": text, "calls": [], "error": ""}) == "") is good


@pytest.mark.parametrize(
    ("arguments", "good"), [('{"city": "Paris"}', True), ('{"city": 1}', False), ("{", False), ("[]", False)]
)
def test_a_call_is_what_a_case_expects(arguments: str, *, good: bool) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    expect = {"tool_call": {"name": "get_weather", "json_schema": schema}}
    answer = {"text": "", "calls": [{"name": "get_weather", "arguments": arguments}], "error": ""}
    assert (cases.case_problem(expect, answer) == "") is good
    assert "it calls nothing" in cases.case_problem(expect, {**answer, "calls": []})


def test_a_vector_is_near_its_reference() -> None:
    expect = {"embedding": {"cosine": 0.99}}
    answer = {"vector": [1.0, 0.0], "reference": [1.0, 0.1], "error": ""}
    assert cases.case_problem(expect, answer) == ""
    assert "cosine 0.7071" in cases.case_problem(expect, {**answer, "reference": [1.0, 1.0]})
    assert "the vector has 2 numbers" in cases.case_problem(expect, {**answer, "reference": [1.0]})
    assert cases.case_problem(expect, {"error": "HTTP 400"}) == "no answer: HTTP 400"


def test_every_gate_is_plain_data() -> None:
    found = [gates.judge_errors("i", 3, []), gates.judge_golden("i", ECHO, [ECHO], (), 0.3)]
    assert json.loads(json.dumps(found)) == found
