"""What the clients ask: a mix of kinds and lengths, the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from testing.weather_tool import CITIES, TOOL, UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator

# Enough for the two arguments and their names, with blanks that the grammar allows between them.
_TOOL_TOKENS: Final = 96
# (share of requests, fewest tokens, most tokens) of an answer: many short ones, a few that a short drain would cut.
_LENGTHS: Final = ((0.80, 2, 16), (0.17, 24, 64), (0.03, 128, 256))
_WORDS: Final = (
    "river",
    "stone",
    "field",
    "rain",
    "bread",
    "wool",
    "ship",
    "star",
    "road",
    "salt",
    "hill",
    "song",
    "map",
)


class Kind(StrEnum):
    """The kinds of request; each is sent whole and streamed."""

    COMPLETION = "completion"
    COMPLETION_STREAM = "completion, streamed"
    CHAT = "chat"
    CHAT_STREAM = "chat, streamed"
    TOOL = "tool call"
    TOOL_STREAM = "tool call, streamed"
    ADAPTER = "adapter"
    ADAPTER_STREAM = "adapter, streamed"

    @property
    def streamed(self) -> bool:
        """Whether the answer comes in pieces."""
        return self.value.endswith("streamed")

    @property
    def calls_tool(self) -> bool:
        """Whether the answer has to be a tool call."""
        return self in {Kind.TOOL, Kind.TOOL_STREAM}


@dataclass(frozen=True)
class Asked:
    """One request: path and body, and how many tokens its answer has: exactly these, or up to these."""

    kind: Kind
    path: str
    body: dict[str, Any]
    tokens: int
    exact: bool

    @property
    def model(self) -> str:
        """The name that is asked for."""
        return str(self.body["model"])


@dataclass(frozen=True)
class Mix:
    """What to mix: the model, its adapters, whether it calls tools, and the longest answer in tokens."""

    model: str
    adapters: tuple[str, ...] = ()
    tools: bool = True
    most_tokens: int = 256

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that this model takes, in turn."""
        without = set() if self.tools else {Kind.TOOL, Kind.TOOL_STREAM}
        without |= set() if self.adapters else {Kind.ADAPTER, Kind.ADAPTER_STREAM}
        return tuple(kind for kind in Kind if kind not in without)


def mixed(mix: Mix, seed: str) -> Iterator[Asked]:
    """Yield requests without an end: every kind as often as the others, in an order that the seed gives."""
    source = random.Random(seed)  # noqa: S311 - repeatable, not secret
    while True:
        for kind in source.sample(mix.kinds, len(mix.kinds)):
            yield _asked(kind, mix, source)


def _asked(kind: Kind, mix: Mix, source: random.Random) -> Asked:
    (_, least, most), *_ = source.choices(_LENGTHS, weights=[share for share, *_ in _LENGTHS])
    tokens = _TOOL_TOKENS if kind.calls_tool else min(source.randint(least, most), mix.most_tokens)
    model = source.choice(mix.adapters) if kind in {Kind.ADAPTER, Kind.ADAPTER_STREAM} else mix.model
    text = " ".join(source.choices(_WORDS, k=source.randint(3, 60)))
    body: dict[str, Any] = {"model": model, "max_tokens": tokens, "temperature": 0}
    if kind.streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if kind.calls_tool:
        city, unit = source.choice(CITIES), source.choice(UNITS)
        body["messages"] = [{"role": "user", "content": f"What is the weather in {city}, in {unit}?"}]
        body |= {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
        return Asked(kind, "/v1/chat/completions", body, tokens, exact=False)
    body["ignore_eos"] = True  # as many tokens as were asked for, so that a short answer is a broken one
    if kind in {Kind.CHAT, Kind.CHAT_STREAM}:
        body["messages"] = [{"role": "user", "content": f"Tell a story of: {text}"}]
        return Asked(kind, "/v1/chat/completions", body, tokens, exact=True)
    body["prompt"] = f"A story of {text}:"
    return Asked(kind, "/v1/completions", body, tokens, exact=True)
