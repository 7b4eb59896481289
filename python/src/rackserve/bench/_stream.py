"""One streamed chat, timed as its client sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackserve.bench._load import Target

OK: Final = "ok"
UNFINISHED: Final = "not finished in time"
_EXCERPT: Final = 160
_DATA: Final = "data:"


@dataclass(frozen=True)
class Sample:
    """The result of one request; times in seconds from its start.

    Attributes:
        outcome: `ok`, or the error in two or three words: `HTTP 429`, `no answer`, `broken stream`, ...
        detail: the message of an error.
        ttft: to the first chunk with text.
        last: to the last chunk with text.
        end: to the end of the stream.
        gaps: between one chunk with text and the next.
        output_tokens: as `usage` says, else the number of chunks with text.
        retry_after: seconds that the answer asked to wait.
    """

    outcome: str
    detail: str = ""
    ttft: float = 0.0
    last: float = 0.0
    end: float = 0.0
    gaps: tuple[float, ...] = ()
    output_tokens: int = 0
    prompt_tokens: int = 0
    counted: bool = False
    retry_after: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the answer came whole."""
        return self.outcome == OK

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; None for an answer of one token."""
        return (self.last - self.ttft) / (self.output_tokens - 1) if self.output_tokens > 1 else None


class _Reading:
    """The part of a stream that was received so far."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.times: list[float] = []
        self.usage: Mapping[str, Any] = {}
        self.done = False
        self.error = ""

    def take(self, line: str) -> None:
        """Read one line of server-sent events."""
        if not line.startswith(_DATA):
            return
        now = time.perf_counter() - self.start
        text = line[len(_DATA) :].strip()
        if text == "[DONE]":
            self.done = True
            return
        try:
            event = json.loads(text)
            if event.get("error"):
                self.error = str(event["error"].get("message", event["error"]))[:_EXCERPT]
            self.usage = event.get("usage") or self.usage
            delta = event["choices"][0]["delta"] if event.get("choices") else {}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            self.error = f"not a chunk of a chat: {text[:_EXCERPT]}"
            return
        if delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
            self.times.append(now)

    def sample(self) -> Sample:
        """Return the sample of what was received."""
        if self.error or not self.done:
            return Sample("broken stream", self.error or "it ended without [DONE]")
        if not self.times:
            return Sample("no text", "the stream had no chunk with text")
        reported = self.usage.get("completion_tokens")
        return Sample(
            OK,
            ttft=self.times[0],
            last=self.times[-1],
            end=time.perf_counter() - self.start,
            gaps=tuple(after - before for before, after in zip(self.times, self.times[1:], strict=False)),
            output_tokens=reported if isinstance(reported, int) and reported > 0 else len(self.times),
            prompt_tokens=int(self.usage.get("prompt_tokens") or 0),
            counted=isinstance(reported, int) and reported > 0,
        )


async def ask(client: httpx.AsyncClient, target: Target, question: str, tokens: int, until: float) -> Sample:
    """Send one chat and read its stream to the end; whatever goes wrong is a sample, never an exception.

    Args:
        client: with a free connection, so that no wait for one is measured.
        target: who is asked.
        question: what is asked.
        tokens: length of the answer.
        until: moment of the running loop's clock at which it is given up.
    """
    try:
        async with asyncio.timeout_at(until):
            return await _ask(client, target, question, tokens)
    except TimeoutError:
        return Sample(UNFINISHED, "it was given up")
    except httpx.HTTPError as error:
        return Sample("no answer", f"{type(error).__name__}: {error}"[:_EXCERPT])


async def _ask(client: httpx.AsyncClient, target: Target, question: str, tokens: int) -> Sample:
    extensions = {"sni_hostname": target.server_name} if target.server_name else {}
    reading = _Reading()
    body = target.body(question, tokens)
    async with client.stream("POST", "/v1/chat/completions", json=body, extensions=extensions) as answer:
        if answer.status_code != httpx.codes.OK:
            await answer.aread()
            said, wait = _message(answer.text), _seconds(answer.headers.get("Retry-After"))
            return Sample(f"HTTP {answer.status_code}", said, retry_after=wait)
        try:
            async for line in answer.aiter_lines():
                reading.take(line)
        except httpx.HTTPError as error:
            return Sample("broken stream", f"{type(error).__name__}: {error}"[:_EXCERPT])
    return reading.sample()


def _message(text: str) -> str:
    """Return the message of an error as OpenAI's clients read it, else the beginning of the text."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["error"]["message"])
    return " ".join(text.split())[:_EXCERPT]


def _seconds(header: str | None) -> float:
    return float(header) if header and header.isdigit() else 0.0
