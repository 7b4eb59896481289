"""The load: target, concurrency or rate, and prompts, which are the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from rackserve.errors import InputError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

MOST_LEVELS: Final = 8
MOST_OPEN: Final = 256
MOST_REQUESTS: Final = 1000
MOST_RATE: Final = 100.0
MOST_SECONDS: Final = 600.0
MOST_WORDS: Final = 20_000
MOST_TOKENS: Final = 4096
# Short, plain English words: about one token each in the vocabularies of the usual models.
_WORDS: Final = tuple(
    """
    the river ran past old stone walls and small green fields while people of town worked in light rain they made bread
    sold wool built boats told long stories about ships stars trade winter roads iron salt glass birds trees hills
    markets bridges songs letters maps clocks lamps gardens horses
    """.split()  # noqa: SIM905 - sixty quoted words read worse
)


class Pattern(StrEnum):
    """When requests are sent.

    CLOSED: so many at once; the next one starts when one has ended.
    POISSON: so many a second on average, with exponential pauses, however many are still open.
    """

    CLOSED = "closed"
    POISSON = "poisson"


@dataclass(frozen=True)
class Load:
    """A load: levels one after the other, each of `requests` requests or `seconds` seconds, whichever ends first.

    Attributes:
        levels: requests at once (closed), or requests per second (Poisson).
        warmup: requests before the first level, all at once; they are not counted.
        seconds: after these no request of a level is started.
        grace: seconds that open requests then still get.
        input_words: words of each question.
        output_tokens: tokens of each answer; never fewer, never more.
    """

    pattern: Pattern = Pattern.CLOSED
    levels: tuple[float, ...] = (1.0, 2.0, 4.0)
    requests: int = 16
    warmup: int = 2
    seconds: float = 60.0
    grace: float = 30.0
    input_words: int = 64
    output_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a load that is none, or more than a short measurement should put on a fleet that serves.

        Raises:
            InputError: naming every value that is out of its bounds.
        """
        high = MOST_OPEN if self.pattern is Pattern.CLOSED else MOST_RATE
        bounds: list[tuple[str, float, float, float]] = [
            ("number of levels", len(self.levels), 1, MOST_LEVELS),
            ("requests", self.requests, 1, MOST_REQUESTS),
            ("warmup", self.warmup, 1, MOST_OPEN),
            ("seconds", self.seconds, 1, MOST_SECONDS),
            ("input words", self.input_words, 1, MOST_WORDS),
            ("output tokens", self.output_tokens, 2, MOST_TOKENS),
        ]
        wrong = [
            f"{name} {value:g} is not from {low:g} to {most:g}"
            for name, value, low, most in bounds
            if not low <= value <= most
        ]
        name = "concurrency" if self.pattern is Pattern.CLOSED else "rate"
        wrong += [
            f"{name} {level:g} is not above 0 and up to {high:g}" for level in self.levels if not 0 < level <= high
        ]
        if self.pattern is Pattern.CLOSED:
            wrong += [f"{name} {level:g} is not a whole number" for level in self.levels if level % 1]
        if len(set(self.levels)) < len(self.levels):
            wrong.append(f"{name}: a level is listed twice")
        if wrong:
            raise InputError(f"this load cannot be measured: {'; '.join(wrong)}")

    @property
    def most_open(self) -> int:
        """Connections that the load may need at once."""
        if self.pattern is Pattern.POISSON:
            return max(self.requests, self.warmup)
        return max(self.warmup, *(int(level) for level in self.levels))

    def questions(self, stream: str) -> Iterator[str]:
        """Yield different questions without an end; the same ones for the same seed and `stream`."""
        source = random.Random(f"{self.seed} {stream}")  # noqa: S311 - repeatable, not secret
        while True:
            yield "Go on with this story: " + " ".join(source.choices(_WORDS, k=self.input_words))

    def pauses(self, rate: float) -> Iterator[float]:
        """Yield the seconds between requests of a Poisson process of `rate` per second."""
        source = random.Random(f"{self.seed} pauses {rate:g}")  # noqa: S311 - repeatable, not secret
        while True:
            yield source.expovariate(rate)


@dataclass(frozen=True)
class Target:
    """The target of a load.

    Attributes:
        name: for the reader: the edge's host, or HOST:INSTANCE.
        url: scheme, address and port.
        server_name: for TLS and the Host header; empty leaves the address.
        verify: TLS context, True for the system's own CAs, False where there is no TLS.
        key: of a client; it is sent, and shown nowhere.
    """

    name: str
    url: str
    model: str
    server_name: str = ""
    verify: ssl.SSLContext | bool = field(default=True, repr=False)
    key: str | None = field(default=None, repr=False)

    def body(self, question: str, tokens: int) -> dict[str, Any]:
        """Return the body of a streamed chat. `min_tokens` is vLLM's: without it the length of answers varies."""
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": tokens,
            "min_tokens": tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
