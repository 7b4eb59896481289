"""An engine's journal: its starts, and the causes that the last of them names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from rackserve.doctor._causes import causes
from rackserve.doctor._failures import REAL, RECORD, Ended, Failure, ended_of
from rackserve.doctor._lines import Line, line_of
from rackserve.doctor._phases import SERVING, marks_of, reached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.doctor._causes import Cause

# systemd's lines about a unit: "Starting vllm@a.service - vLLM instance a..."; older ones leave out the unit's name.
_STARTING: Final = re.compile(r"^(?:.*systemd\[\d+\]: )?Starting (?:vLLM instance |\S*vllm\S*@)")
_STARTED: Final = re.compile(r"^(?:.*systemd\[\d+\]: )?Started (?:vLLM instance |\S*vllm\S*@)")
_STOPPING: Final = re.compile(
    r"^(?:.*systemd\[\d+\]: )?Stopping (?:vLLM instance |\S*vllm\S*@)|: start operation timed out\. Terminating"
)
_LAST: Final = 20
_NO_WORDS: Final = re.compile(
    r"^\S*vllm\S*(?:@\S*)?(?:\.service|\.socket)?:? |^no token of |\d+%\||\d+% Completed|^(?:Started|Stopped) "
)
_ENDS: Final = re.compile(r"Main process exited|Failed with result|: Deactivated successfully|Start request repeated")

# Causes that a warning at the very beginning may explain.
_HINTED: Final = frozenset({"driver-missing", "broken-package", "library-missing"})


@dataclass(frozen=True)
class Start:
    """One start of an engine: its lines, and whether systemd said that it ended."""

    lines: tuple[Line, ...]
    over: bool

    @cached_property
    def phase(self) -> str | None:
        """The furthest phase that it showed; None where it showed none."""
        return reached(marks_of(self.lines), len(self.lines))

    @cached_property
    def ended(self) -> Ended | None:
        """How it failed; None where it did not."""
        return ended_of(self.lines)

    @property
    def served(self) -> bool:
        """Whether it came to serve."""
        return self.phase == SERVING

    def last_words(self) -> Failure | None:
        """Return what it said last without a logger: of the C library or the shell, where no error is known."""
        said: list[str] = []
        for line in self.lines:
            if line.level:
                said = []
            elif line.text.strip() and not line.text.startswith(" ") and not _NO_WORDS.search(line.text):
                said.append(line.text.strip())
        return Failure(len(self.lines), "", said[: -_LAST - 1 : -1], rank=RECORD, native=True) if said else None


def starts_of(journal: Sequence[str], begins: Sequence[int] = ()) -> list[Start]:
    """Return the starts of an engine, oldest first, without those that wrote nothing.

    What an engine writes after somebody stops it, or its time is over, is no failure, and left out.

    Args:
        journal: lines, oldest first.
        begins: places of lines with which an invocation of the unit begins, as systemd numbers them.
    """
    places = set(begins)
    starts: list[list[str]] = [[]]
    ends: list[bool] = [False]
    waits = stopping = False
    for at, line in enumerate(journal):
        starting = bool(_STARTING.match(line))
        # A unit of another type has no line before its start, only the one that it started.
        started = bool(_STARTED.match(line)) and (ends[-1] or not waits)
        if at in places or starting or started:
            starts.append([])
            ends.append(False)
            waits, stopping = starting or at in places, False
        stopping = stopping or bool(_STOPPING.search(line))
        ends[-1] = ends[-1] or bool(_ENDS.search(line))
        if not (starting or stopping or _STARTED.match(line)):
            starts[-1].append(line)
    return [
        Start(tuple(map(line_of, lines)), over)
        for lines, over in zip(starts, ends, strict=True)
        if any(line.strip() for line in lines)
    ]


def named_by(ended: Ended) -> list[tuple[Cause, Failure]]:
    """Return the causes that the failures of a start name, likeliest first, each once.

    What was said beside the root counts only where the root itself is known, or where it is no Python exception: an
    error that was handled before an unknown one would mislead.
    """
    root, *beside = ended.failures
    found = [hit for one in root.chain() for hit in _matches(one, ended.phase)]
    hints = bool(_HINTED & {cause.name for cause, _ in found})
    for other in beside:
        if hints if other.hint else found or root.rank > REAL or other.native:
            found += _matches(other, ended.phase)
    best: dict[str, tuple[Cause, Failure]] = {}
    for cause, failure in sorted(found, key=lambda hit: -hit[0].weight):
        best.setdefault(cause.name, (cause, failure))
    return list(best.values())


def line_naming(cause: Cause, failure: Failure) -> str:
    """Return the line of a failure that names a cause."""
    said = (line.strip() for line in failure.lines if any(pattern.search(line) for pattern in cause.says))
    return next(said, failure.shown())[:400]


def _matches(failure: Failure, phase: str | None) -> list[tuple[Cause, Failure]]:
    served = phase == SERVING
    return [(cause, failure) for cause in causes() if cause.names(failure.text, failure.frames, served=served)]


def last_ended(starts: Sequence[Start], *, again: bool, loops: bool, newest: bool) -> Ended | None:
    """Return how the last start failed; None where none did, or the last one goes on well.

    Args:
        starts: the starts, oldest first.
        again: whether systemd started the engine anew by itself: then the start before a running one counts.
        loops: whether it comes up and fails again and again: then also if the running one serves.
        newest: whether only the newest start counts.
    """
    for age, start in enumerate(reversed(starts)):
        if start.ended:
            return start.ended
        if newest or age or start.over or not (again or loops) or (start.served and not loops):
            return None
    return None
