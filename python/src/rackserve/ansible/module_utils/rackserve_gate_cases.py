# Apache License 2.0 (see LICENSE)
"""The gate of the site's own cases: pure functions, see `rackserve_gates`.

Runs on the hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List, Mapping, Sequence  # noqa: UP035 - Python 3.9 runs this

from ansible.module_utils.rackserve_gates import Gate, cosine, gate
from ansible.module_utils.rackserve_json_schema import violation
from ansible.module_utils.rackserve_judges import excerpt

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_FENCE = re.compile(r"\A\s*```[a-zA-Z]*\n(.*?)\n?```\s*\Z", re.DOTALL)


def _json_schema(schema: Any, answer: Mapping[str, Any]) -> str:  # noqa: ANN401 - what JSON holds
    text = answer["text"]
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except ValueError:
        return f"the answer is not JSON: {excerpt(text)!r}"
    problem = violation(value, schema)
    return f"the answer does not fit the schema: {problem}" if problem else ""


def _regex(pattern: str, answer: Mapping[str, Any]) -> str:
    found = re.search(pattern, answer["text"])
    return "" if found else f"the answer {excerpt(answer['text'])!r} does not match {pattern!r}"


def _contains(text: str, answer: Mapping[str, Any]) -> str:
    return "" if text in answer["text"] else f"the answer {excerpt(answer['text'])!r} does not contain {text!r}"


def _number(wanted: Mapping[str, float], answer: Mapping[str, Any]) -> str:
    found = _NUMBER.findall(answer["text"])
    if not found:
        return f"the answer {excerpt(answer['text'])!r} has no number"
    value = float(found[-1].replace(",", ""))
    if abs(value - wanted["value"]) <= wanted["tolerance"]:
        return ""
    return f"the last number is {value:g}, wanted {wanted['value']:g} within {wanted['tolerance']:g}"


def _tool_call(wanted: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    calls = [call for call in answer["calls"] if call["name"] == wanted["name"]]
    if not calls:
        others = ", ".join(str(call["name"]) for call in answer["calls"]) or "nothing"
        return f"it calls {others}, wanted {wanted['name']!r}; the text is {excerpt(answer['text'])!r}"
    try:
        arguments = json.loads(calls[0]["arguments"])
    except ValueError:
        return f"the arguments of {wanted['name']!r} are not JSON: {excerpt(str(calls[0]['arguments']))!r}"
    problem = violation(arguments, wanted.get("json_schema", {"type": "object"}))
    return f"the arguments of {wanted['name']!r} do not fit the schema: {problem}" if problem else ""


def _embedding(wanted: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    if len(answer["vector"]) != len(answer["reference"]):
        return f"the vector has {len(answer['vector'])} numbers, the reference {len(answer['reference'])}"
    found = cosine(answer["vector"], answer["reference"])
    return "" if found >= wanted["cosine"] else f"cosine {found:.4f}, at least {wanted['cosine']:g} wanted"


EXPECTATIONS: Dict[str, Callable[[Any, Mapping[str, Any]], str]] = {  # noqa: UP006
    "json_schema": _json_schema,
    "regex": _regex,
    "contains": _contains,
    "number": _number,
    "tool_call": _tool_call,
    "embedding": _embedding,
}


def case_problem(expect: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """Return why an answer is not what a case expects; empty where it is.

    Args:
        expect: the expectations, each of which must hold, by the names of EXPECTATIONS.
        answer: `error` where none came; else `text` and `calls`, or `vector` and `reference`.
    """
    if answer.get("error"):
        return f"no answer: {answer['error']}"
    problems = (EXPECTATIONS[name](wanted, answer) for name, wanted in expect.items())
    return next((problem for problem in problems if problem), "")


def judge_cases(instance: str, problems: Mapping[str, str], asked: int) -> Gate:
    """Every case of the site is answered as it expects.

    Args:
        instance: the instance's label.
        problems: by the case's name, why its last answer was not what it expects; empty where it was.
        asked: requests that were sent for them; a case is asked a second time where the first answer was wrong.
    """
    failed: List[str] = [f"{name}: {problem}" for name, problem in problems.items() if problem]  # noqa: UP006
    figures = {"cases": len(problems), "failed": len(failed), "asked": asked, "problems": dict(problems)}
    if not problems:
        return gate("cases", instance, None, "not compared: the inventory has no case for it", **figures)
    if failed:
        text = f"{len(failed)} of {len(problems)} cases failed twice: {'; '.join(failed)}"
        return gate("cases", instance, False, text, **figures)
    again = f", {asked - len(problems)} at the second time" if asked > len(problems) else ""
    return gate("cases", instance, True, f"{len(problems)} of {len(problems)} cases passed{again}", **figures)


def calls_of(message: Mapping[str, Any]) -> List[Dict[str, str]]:  # noqa: UP006
    """Return the tool calls of a message: name and arguments, a text."""
    calls: Sequence[Mapping[str, Any]] = message.get("tool_calls") or ()
    functions = [call.get("function") or {} for call in calls]
    return [{"name": str(one.get("name", "")), "arguments": str(one.get("arguments", ""))} for one in functions]
