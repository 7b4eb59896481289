"""`vllm_gate_cases`: what is refused, and which instance gets which case."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rackserve import vllm
from rackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

CASE: dict[str, Any] = {"name": "c", "prompt": "p", "expect": {"contains": "x"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
VECTOR: dict[str, Any] = {"name": "v", "prompt": "p", "expect": {"embedding": {"file": "v.json"}}}


def instance(name: str, **more: Any) -> dict[str, Any]:
    model = {"repo": "o/m", "revision": "0" * 40, "served_names": [f"{name}-model"]}
    return {"name": name, "model": model, "max_num_seqs": 1, "max_model_len": 8, **more}


FLEET = [instance("chat", lora=[{"name": "ada", "path": "/a"}]), instance("vectors", task="embed")]

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt key": ({**CASE, "promt": "p"}, "unknown key 'promt' (found 'p'), is it 'prompt'?"),
    "no question": ({"name": "c", "expect": {"contains": "x"}}, "the question is either `prompt` or `messages`"),
    "two questions": ({**CASE, "messages": [{"role": "user", "content": "a"}]}, "either `prompt` or `messages`"),
    "nothing expected": ({**CASE, "expect": {}}, "nothing is expected; set one of contains, regex"),
    "no regular expression": ({**CASE, "expect": {"regex": "("}}, "this is no regular expression"),
    "a keyword": ({**CASE, "expect": {"json_schema": {"$ref": "#"}}}, "'$ref', which is not supported"),
    "a tolerance": ({**CASE, "expect": {"number": {"value": 1, "tolerance": -1}}}, "expect.number.tolerance"),
    "an unknown tool": ({**CASE, "expect": {"tool_call": {"name": "f"}}}, "the tools are: none; add it to tools"),
    "a tool without a name": ({**CASE, "tools": [{"type": "function"}]}, "a tool has type: function and function.name"),
    "two references": ({**CASE, "expect": {"embedding": {"file": "a", "text": "b"}}}, "either `file` or `text`"),
    "a file outside": ({**CASE, "expect": {"embedding": {"file": "../a"}}}, "inside the inventory's folder"),
    "no file": ({**CASE, "expect": {"embedding": {"file": "none.json"}}}, "cannot be read"),
    "an embedding and a text": (
        {**CASE, "expect": {"embedding": {"text": "b"}, "contains": "a"}},
        "embedding stands alone",
    ),
}


@pytest.mark.parametrize(("case", "part"), WRONG.values(), ids=WRONG)
def test_a_wrong_case_is_refused_by_name(tmp_path: Path, case: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as refused:
        vllm.parse_gate_cases([case], tmp_path)
    assert str(refused.value).startswith("vllm_gate_cases: case 'c': ")
    assert part in str(refused.value)


def test_right_cases_are_taken(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text("[1, 0.5]")
    call = {**CASE, "name": "t", "tools": [TOOL], "expect": {"tool_call": {"name": "f"}}}
    assert vllm.gate_case_problems([CASE, VECTOR, call], tmp_path, [FLEET]) == []


def test_two_cases_of_a_name_are_refused(tmp_path: Path) -> None:
    assert vllm.gate_case_problems([CASE, CASE], tmp_path, [FLEET]) == [
        "vllm_gate_cases: case 'c' is there 2 times; give each its own name"
    ]


@pytest.mark.parametrize("text", ["{", "[]", "[0, 0]", '["a"]', "[true]", "{}"])
def test_a_reference_that_is_no_vector_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "v.json").write_text(text)
    assert len(vllm.gate_case_problems([VECTOR], tmp_path, [FLEET])) == 1


@pytest.mark.parametrize("key", [{"model": "other"}, {"instance": "other"}, {"model": "vectors-model"}])
def test_a_case_for_what_nobody_serves_is_refused(tmp_path: Path, key: dict[str, str]) -> None:
    (problem,) = vllm.gate_case_problems([{**CASE, **key}], tmp_path, [FLEET])
    assert "there is no such instance that generates; there are chat (chat-model, ada), vectors" in problem


def names(name: str, site: Path, *cases: dict[str, Any]) -> list[str]:
    return [case["name"] for case in vllm.gate_cases_of(list(cases), FLEET, name, site)]


def test_an_instance_gets_its_cases(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text("[1, 0.5]")
    all_ = [
        CASE,
        VECTOR,
        {**CASE, "name": "ada", "model": "ada"},
        {**CASE, "name": "chat", "model": "chat-model"},
        {**CASE, "name": "other", "instance": "x"},
    ]
    assert names("chat", tmp_path, *all_) == ["c", "ada", "chat"]
    assert names("vectors", tmp_path, *all_) == ["v"]


def test_a_case_is_plain_data_with_all_that_the_host_needs(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text("[1, 0.5]")
    call = {**CASE, "name": "t", "tools": [TOOL], "expect": {"tool_call": {"name": "f"}}}
    (found,) = vllm.gate_cases_of([call], FLEET, "chat", tmp_path)
    assert found["expect"]["tool_call"] == {"name": "f", "json_schema": {"type": "object"}}
    (vector,) = vllm.gate_cases_of([VECTOR], FLEET, "vectors", tmp_path)
    assert vector["expect"]["embedding"]["vector"] == [1.0, 0.5]
    assert json.loads(json.dumps([found, vector])) == [found, vector]
