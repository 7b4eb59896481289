"""Judges an answer: good only if nothing of it is missing, else the reason why not."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from testing.weather_tool import CITIES, UNITS

if TYPE_CHECKING:
    from testing.traffic._requests import Asked

OK: Final = 200
_EXCERPT: Final = 200
_DATA: Final = "data:"
# nginx's $request_id in `cmpl-...` and `chatcmpl-...`: vLLM takes it from the header X-Request-Id.
_REQUEST: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_DONE: Final = "[DONE]"
# What a whole answer ends with; vLLM says `abort` of a request that it gave up, and `error` of one that failed.
_FINISHED: Final = frozenset({"stop", "length", "tool_calls"})


class Reason(StrEnum):
    """Why a request counts as failed; one with another status than 200 has that as its reason."""

    REFUSED = "connection refused"
    NO_CONNECTION = "no connection"
    BROKEN_BEFORE = "broken before the answer"
    BROKEN_WITHIN = "broken within the answer"
    TIMEOUT = "not answered in time"
    NOT_JSON = "not JSON"
    ERROR = "error in an answer of 200"
    NO_DONE = "no [DONE]"
    AFTER_DONE = "more after [DONE]"
    NO_CHOICE = "no choice"
    NO_FINISH = "no finish_reason"
    BAD_FINISH = "finish_reason of a broken answer"
    NO_USAGE = "no usage"
    TOKENS = "wrong number of tokens"
    NO_CALL = "no tool call"
    BAD_CALL = "broken tool call"


@dataclass(frozen=True)
class Verdict:
    """What came of an answer.

    Attributes:
        reason: why it is no good one; empty for a good one.
        tokens: of the answer, as `usage` says.
        fingerprint: vLLM's `system_fingerprint`.
        request: the edge's ID of the request, which the engine makes its answer's `id` of.
    """

    reason: str = ""
    detail: str = ""
    tokens: int = 0
    fingerprint: str = ""
    request: str = ""


class _BrokenError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail[:_EXCERPT]


@dataclass
class _Found:
    """What the body said, whole or in pieces."""

    finish: dict[int, str | None] = field(default_factory=dict)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    request: str = ""

    def take(self, part: dict[str, Any]) -> None:
        """Read the body of a whole answer, or one chunk of a stream."""
        if part.get("error"):
            raise _BrokenError(Reason.ERROR, json.dumps(part["error"]))
        self.usage = part.get("usage") or self.usage
        self.fingerprint = part.get("system_fingerprint") or self.fingerprint
        self.request = self.request or "".join(_REQUEST.findall(str(part.get("id", ""))))
        for choice in part.get("choices") or ():
            index = choice["index"]
            self.finish[index] = choice.get("finish_reason") or self.finish.get(index)
            for number, call in enumerate((choice.get("delta") or choice.get("message") or {}).get("tool_calls") or ()):
                known = self.calls.setdefault(call.get("index", number), {"name": "", "arguments": ""})
                for key in known:
                    known[key] += call.get("function", {}).get(key) or ""


def judge(asked: Asked, status: int, text: str) -> Verdict:
    """Judge a body that was read to its end.

    Args:
        asked: the request.
        status: of HTTP.
        text: the body.
    """
    if status != OK:
        return Verdict(f"HTTP {status}", " ".join(text.split())[:_EXCERPT])
    found = _Found()
    try:
        for part in _events(text) if asked.kind.streamed else [text]:
            try:
                found.take(json.loads(part))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise _BrokenError(Reason.NOT_JSON, f"{type(error).__name__}: {part}") from None
        if asked.kind.streamed:
            _ended(text)
        tokens = _whole(asked, found)
    except _BrokenError as broken:
        return Verdict(broken.reason, broken.detail, fingerprint=found.fingerprint, request=found.request)
    return Verdict(tokens=tokens, fingerprint=found.fingerprint, request=found.request)


def _data(text: str) -> list[str]:
    return [line[len(_DATA) :].strip() for line in text.splitlines() if line.startswith(_DATA)]


def _events(text: str) -> list[str]:
    return [event for event in _data(text) if event != _DONE]


def _ended(text: str) -> None:
    events = _data(text)
    if _DONE not in events:
        raise _BrokenError(Reason.NO_DONE, events[-1] if events else text)
    if events.index(_DONE) != len(events) - 1:
        raise _BrokenError(Reason.AFTER_DONE, events[-1])


def _whole(asked: Asked, found: _Found) -> int:
    """Return how many tokens a whole answer has."""
    if not found.finish:
        raise _BrokenError(Reason.NO_CHOICE, "")
    finish = found.finish[max(found.finish)]
    if not finish:
        raise _BrokenError(Reason.NO_FINISH, "")
    if finish not in _FINISHED:
        raise _BrokenError(Reason.BAD_FINISH, finish)
    if asked.kind.calls_tool:
        _call(found)
    tokens = found.usage.get("completion_tokens")
    if not isinstance(tokens, int):
        raise _BrokenError(Reason.NO_USAGE, json.dumps(found.usage))
    if tokens != asked.tokens if asked.exact else not 0 < tokens <= asked.tokens:
        raise _BrokenError(Reason.TOKENS, f"{tokens} tokens, {asked.tokens} were asked for")
    return tokens


def _call(found: _Found) -> None:
    if not found.calls:
        raise _BrokenError(Reason.NO_CALL, "")
    for call in found.calls.values():
        told = f"{call['name']}: {call['arguments']}"
        try:
            arguments = json.loads(call["arguments"])
            fits = set(arguments) == {"city", "unit"} and arguments["city"] in CITIES and arguments["unit"] in UNITS
        except (ValueError, TypeError, KeyError):
            fits = False
        if not fits or call["name"] != "get_weather":
            raise _BrokenError(Reason.BAD_CALL, told)
