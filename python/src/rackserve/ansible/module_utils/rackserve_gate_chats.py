# Apache License 2.0 (see LICENSE)
"""The gates of tool calls and of the chat template: pure functions, see `rackserve_gates`.

Runs on the hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence  # noqa: UP035 - Python 3.9 runs this

from ansible.module_utils.rackserve_gates import Gate, gate
from ansible.module_utils.rackserve_json_schema import violation
from ansible.module_utils.rackserve_judges import excerpt

# Texts that no template writes itself, so that each can be found in a rendered prompt.
CHAT = (
    {"role": "user", "content": "First question: alpha-7141?"},
    {"role": "assistant", "content": "First answer: bravo-2906."},
    {"role": "user", "content": "Second question: charlie-5382?"},
)
CHAT_PROMPTS = (
    "Reply with the single word: yes",
    "What is the capital of France? Answer with one word.",
    "Say hello in one short sentence.",
)
_MARKER = re.compile(
    r"<[|\uff5c][^|\uff5c<>\s]{1,40}[|\uff5c]>|</?s>|<(?:start|end)_of_turn>|\[/?[A-Z_]{4,24}\]|</?[A-Z]{3,12}>"
)
# Beginnings of turns of templates that have no markers; in an answer they are the next turn that nobody asked for.
_TURN = re.compile(
    r"^(?:#{2,3} ?)?(?:user|assistant|system|human|instruction|response):?\s*$", re.IGNORECASE | re.MULTILINE
)
_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}|\d{1,2} [A-Z][a-z]{2,8},? \d{4}|[A-Z][a-z]{2,8} \d{1,2},? \d{4}|\d{1,2}:\d{2}(?::\d{2})?"
)

WEATHER: Dict[str, Any] = {  # noqa: UP006
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city"],
}
TOOLS: List[Dict[str, Any]] = [  # noqa: UP006
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "The weather of a city now.", "parameters": WEATHER},
    }
]
TOOL_PROMPTS = (
    "What is the weather in Paris now? Use the tool get_weather.",
    "Call get_weather for Lisbon, in celsius.",
)
# What a model writes to call a tool, by the parser that reads it (vLLM 0.32.0, vllm/tool_parsers). An engine can be
# made to write exactly this, so that a parser is tested whether or not the model would call a tool by itself.
_NAME, _ARGUMENTS = "get_weather", '{"city": "Paris", "unit": "celsius"}'
WRITTEN_CALLS = {
    "hermes": f'<tool_call>\n{{"name": "{_NAME}", "arguments": {_ARGUMENTS}}}\n</tool_call>',
    "llama3_json": f'{{"name": "{_NAME}", "parameters": {_ARGUMENTS}}}',
    "llama4_json": f'{{"name": "{_NAME}", "parameters": {_ARGUMENTS}}}',
    "pythonic": f'[{_NAME}(city="Paris", unit="celsius")]',
}
# Better outcomes first; `raw`: the call stands in the text, as a parser that does not work leaves it.
_BAD = ("raw", "invalid", "refused")


def tool_outcome(text: str, calls: Sequence[Mapping[str, Any]], *, cut: bool = False) -> Dict[str, str]:  # noqa: UP006
    """Return what a request with tools led to: `kind` called, raw, invalid, silent, and `detail`.

    Args:
        text: the answer's text.
        calls: the tool calls in it: `name` and `arguments`, a text.
        cut: whether the answer ended at its longest length, where nobody knows what would have followed.
    """
    if not calls:
        raw = _NAME in text and ('"city"' in text or "city=" in text) and not cut
        return {"kind": "raw", "detail": excerpt(text)} if raw else {"kind": "silent", "detail": excerpt(text)}
    for call in calls:
        if call["name"] != _NAME:
            return {"kind": "invalid", "detail": f"it calls {call['name']!r}, which it was not offered"}
        try:
            problem = violation(json.loads(call["arguments"]), WEATHER)
        except ValueError:
            problem = f"the arguments are not JSON: {excerpt(str(call['arguments']))}"
        if problem:
            return {"kind": "silent" if cut else "invalid", "detail": problem}
    return {"kind": "called", "detail": excerpt(str(calls[0]["arguments"]))}


def judge_tools(
    instance: str,
    parser: str,
    before: Optional[Mapping[str, Mapping[str, str]]],  # noqa: UP045
    now: Mapping[str, Mapping[str, str]],
) -> Gate:
    """Tool calls come out as before: valid JSON that fits the tool's schema.

    Args:
        instance: the instance's label.
        parser: the parser of tool calls; empty where tool calls are off.
        before: the outcomes of the engine before, by request, see `tool_outcome`; None where there is none.
        now: those of the new engine. The key of a request whose answer was dictated begins with `written`.
    """
    if not parser:
        return gate("tools", instance, None, "not compared: tool calls are off")
    was = before or {}
    called = [key for key, one in now.items() if one["kind"] == "called"]
    figures = {"called": len(called), "asked": len(now), "outcomes": {key: one["kind"] for key, one in now.items()}}
    for key, one in now.items():
        # An engine need not take a dictated answer, and a weak model calls tools badly: only what worked can break.
        known_good = was.get(key, {}).get("kind") == "called"
        judged_alone = key not in was and not key.startswith("written")
        if one["kind"] in _BAD and (known_good or judged_alone):
            what = {
                "raw": "the call is left in the text",
                "invalid": "the call is not valid",
                "refused": "the request was refused",
            }[one["kind"]]
            return gate("tools", instance, False, f"{what} ({key}): {one['detail']}", **figures)
    if called:
        text = f"{len(called)} of {len(now)} requests gave a valid call"
        return gate("tools", instance, True, text, **figures)
    good = [key for key, one in was.items() if one["kind"] == "called" and key in now]
    if good:
        text = f"no request gave a call, and {len(good)} of {len(now)} did before"
        return gate("tools", instance, False, text, **figures)
    return gate("tools", instance, None, "not compared: the model called no tool by itself, nor before", **figures)


def chat_shape(
    rendered: str, without_generation: str, single: Mapping[str, bool], chat: Sequence[Mapping[str, str]] = CHAT
) -> Dict[str, bool]:  # noqa: UP006
    """Return what holds of a rendered chat: `complete`, `roles`, `special`, `markers_known`, `generation`.

    Args:
        rendered: the prompt of the chat, with what asks the model for its answer.
        without_generation: the same without it.
        single: whether each marker in it (`<|im_start|>`) is one token of the model.
        chat: the chat.
    """
    places, at = [], 0
    for message in chat:
        found = rendered.find(message["content"], at)
        if found < 0:
            break
        places.append((found, found + len(message["content"])))
        at = places[-1][1]
    complete = len(places) == len(chat)
    # What stands before an answer, and what stands before the next question.
    turns = [rendered[places[0][1] : places[1][0]], rendered[places[1][1] : places[2][0]]] if complete else ["", ""]
    return {
        "complete": complete,
        "roles": complete and turns[0].strip() != turns[1].strip(),
        "special": any(single.values()),
        "markers_known": all(single.values()),
        "generation": rendered != without_generation,
    }


def markers_in(text: str) -> List[str]:  # noqa: UP006
    """Return the markers in a text, such as `<|im_start|>` and `[INST]`, each once."""
    return sorted(set(_MARKER.findall(text)))


def is_garbage(text: str, *, ended: bool) -> str:
    """Return why an answer to a plain question is none; empty where it is one."""
    if not text.strip():
        return "it is empty"
    leaked = markers_in(text) or _TURN.findall(text)
    if leaked:
        return f"it has a part of a template in it: {leaked[0].strip()!r}"
    return "" if ended else "it does not end"


def _masked(text: str) -> str:
    """Return a rendered prompt without dates and times, which some templates write."""
    return _DATE.sub("DATE", text)


_SHAPES = {
    "complete": "the rendered prompt lacks a message of the chat",
    "roles": "the rendered prompt does not tell a question from an answer",
    "special": "the rendered prompt has no special token of the model",
    "markers_known": "the rendered prompt has markers that are no tokens of the model",
    "generation": "the rendered prompt does not ask for an answer",
}


def judge_template(
    instance: str,
    before: Optional[Mapping[str, Any]],  # noqa: UP045
    now: Mapping[str, Any],
    *,
    same_template: bool,
) -> Gate:
    """The chat template is one that the model knows.

    Args:
        instance: the instance's label.
        before: of the engine before, None where there is none.
        now: of the new engine: `rendered` (null where the engine renders no chat), `shape` as `chat_shape`, `garbage`
            as `is_garbage` for each prompt of CHAT_PROMPTS, and `reason`, why there is nothing.
        same_template: whether model and template are said to be those of before.
    """
    if now["rendered"] is None and not now["garbage"]:
        worked = before is not None and before["rendered"] is not None
        text = f"the engine takes no chat: {now['reason']}"
        return gate("template", instance, False if worked else None, text if worked else f"not compared: {text}")
    was = before if before is not None and before["rendered"] is not None else None
    shape, garbage = now["shape"], [one for one in now["garbage"] if one]
    figures = {"shape": shape, "garbage": len(garbage), "answers": len(now["garbage"])}
    if now["rendered"] is not None:
        if was is not None and same_template and _masked(was["rendered"]) != _masked(now["rendered"]):
            difference = _difference(_masked(was["rendered"]), _masked(now["rendered"]))
            return gate("template", instance, False, f"a fixed chat is rendered differently: {difference}", **figures)
        held = was["shape"] if was is not None else {"complete": True}
        lost = [key for key in _SHAPES if held.get(key) and not shape[key]]
        if lost:
            text = _SHAPES[lost[0]] + (", and it did before" if was is not None and lost[0] != "complete" else "")
            return gate("template", instance, False, text, **figures)
    if garbage and len(garbage) == len(now["garbage"]) and before is not None and not any(before["garbage"]):
        text = f"none of {len(garbage)} plain questions has an answer, and each had before: {garbage[0]}"
        return gate("template", instance, False, text, **figures)
    how = "as before" if was is not None and same_template else "and the prompt has the parts of a chat"
    text = f"a fixed chat is rendered {how}" if now["rendered"] is not None else "the engine renders no chat for us"
    answered = len(now["garbage"]) - len(garbage)
    return gate("template", instance, True, f"{text}; {answered} of {len(now['garbage'])} answers are clean", **figures)


def _difference(old: str, new: str) -> str:
    """Return the first difference of two texts, with a little of what is around it."""
    pairs = zip(old, new)  # noqa: B905 - Python 3.9 has no strict
    at = next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(old), len(new)))
    begin = max(0, at - 12)
    return f"{old[begin : at + 24]!r} is now {new[begin : at + 24]!r}"
