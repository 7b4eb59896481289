"""Draws one rollout from what its clients and its operator noted: requests, errors, times and versions, as one SVG.

    PYTHONPATH=python python python/tools/rollout_picture.py traffic.jsonl picture.svg --events events.jsonl

The first file is what testing.traffic writes. The second has one JSON object a line: `at` (seconds since the epoch),
`host`, and `state`, one of serves, drains, switches, gates, returns. Without it there is no panel of hosts.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rackserve.dashboards.picture import Series, Span, picture
from testing.traffic import Record, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

STATES: Final = ("serves", "drains", "switches", "gates", "returns")
_COLOURS: Final = ("green", "orange", "blue", "purple", "red")
_POINTS: Final = 120


class Event(NamedTuple):
    """From this moment on a host is in this state."""

    at: float
    host: str
    state: str


def read_events(path: Path) -> list[Event]:
    """Read the file of events.

    Raises:
        ValueError: naming a state that is not known.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    events = [Event(float(row["at"]), str(row["host"]), str(row["state"])) for row in rows]
    if unknown := sorted({event.state for event in events} - set(STATES)):
        raise ValueError(f"{path} has the state {unknown[0]!r}; set one of {', '.join(STATES)}")
    return sorted(events)


def span_of(records: Sequence[Record]) -> Span:
    """Return from the first start to the last end."""
    return Span(min(r.start for r in records), max(r.start + r.end for r in records))


def step_of(span: Span) -> float:
    """Return the whole seconds that one point stands for."""
    return float(max(1, math.ceil((span.end - span.start) / _POINTS)))


def over_time(
    records: Iterable[Record], span: Span, name_of: Callable[[Record], str | None]
) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return answers per second for each name, by the moments at which they ended; None leaves a record out."""
    step = step_of(span)
    counts: dict[str, Counter[int]] = {}
    for record in records:
        if (name := name_of(record)) is not None:
            counts.setdefault(name, Counter())[int((record.start + record.end - span.start) // step)] += 1
    steps = range(int((span.end - span.start) // step) + 1)
    return [(name, [(span.start + n * step, found[n] / step) for n in steps]) for name, found in sorted(counts.items())]


def slowest(records: Iterable[Record], span: Span, value_of: Callable[[Record], float]) -> list[tuple[float, float]]:
    """Return the highest value of the good answers that ended in each step; NaN where none did."""
    step = step_of(span)
    found: dict[int, float] = {}
    for record in records:
        if record.ok:
            at = int((record.start + record.end - span.start) // step)
            found[at] = max(found.get(at, 0.0), value_of(record))
    steps = range(int((span.end - span.start) // step) + 1)
    return [(span.start + n * step, found.get(n, math.nan)) for n in steps]


def states_of(events: Sequence[Event], span: Span) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return the state of each host over time as numbers, which its panel names; before its first event it serves."""
    step = step_of(span)
    moments = [span.start + n * step for n in range(int((span.end - span.start) // step) + 1)]
    rows = []
    for host in sorted({event.host for event in events}):
        own = [event for event in events if event.host == host]
        states = [next((e.state for e in reversed(own) if e.at <= at), STATES[0]) for at in moments]
        rows.append((host, [(at, float(STATES.index(state))) for at, state in zip(moments, states, strict=True)]))
    return rows


def _panel(number: int, kind: str, title: str, place: tuple[int, int, int, int], unit: str = "short") -> dict[str, Any]:
    x, y, wide, high = place
    names = {str(n): {"text": s, "color": c} for n, (s, c) in enumerate(zip(STATES, _COLOURS, strict=True))}
    stacking = {"stacking": {"mode": "normal"}} if number == 1 else {}
    defaults = {"unit": unit, "custom": stacking, "mappings": [{"type": "value", "options": names}]}
    return {
        "id": number,
        "type": kind,
        "title": title,
        "gridPos": {"x": x, "y": y, "w": wide, "h": high},
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }


def draw(records: Sequence[Record], events: Sequence[Event], title: str) -> str:
    """Return the SVG: good answers by version, failed ones by reason, slowest answers, and the hosts' states.

    Args:
        records: of all clients, at least one.
        events: of the hosts; none leaves their panel out.
        title: of the picture.
    """
    span = span_of(records)
    failed = sum(not record.ok for record in records)
    step = f"{step_of(span):.0f} s"
    answers: dict[int, list[tuple[str, list[tuple[float, float]]]]] = {
        1: over_time(records, span, lambda r: (r.fingerprint or "no version told") if r.ok else None),
        2: over_time(records, span, lambda r: None if r.ok else r.reason) or [("none", _zeros(span))],
        3: [
            ("whole answer", slowest(records, span, lambda r: r.end)),
            ("first token", slowest(records, span, lambda r: r.first)),
        ],
        4: states_of(events, span),
    }
    panels = [
        _panel(1, "timeseries", "Good answers a second, by version of the engine", (0, 0, 24, 7)),
        _panel(2, "timeseries", "Failed requests a second, by reason", (0, 7, 12, 6)),
        _panel(3, "timeseries", f"Slowest answer in every {step}", (12, 7, 12, 6), "s"),
    ]
    if events:
        panels.append(_panel(4, "state-timeline", "Hosts", (0, 13, 24, 1 + 2 * len(answers[4]))))
    drawn = {number: [Series("A", name, {}, points) for name, points in rows] for number, rows in answers.items()}
    note = f"{len(records)} requests in {span.end - span.start:.0f} s, {failed} failed; times are UTC"
    return picture({"title": title, "panels": panels}, drawn, span, note)


def _zeros(span: Span) -> list[tuple[float, float]]:
    step = step_of(span)
    return [(span.start + n * step, 0.0) for n in range(int((span.end - span.start) // step) + 1)]


def main(argv: Sequence[str] | None = None) -> int:
    """Draw one picture; exit 2 where there is nothing to draw, or an event is not known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, help="JSON lines of testing.traffic")
    parser.add_argument("picture", type=Path, help="SVG to write")
    parser.add_argument("--events", type=Path, help="JSON lines with at, host and state")
    parser.add_argument("--title", default="A rollout")
    options = parser.parse_args(argv)
    try:
        records = read_records(options.records)
        events = read_events(options.events) if options.events else []
    except (ValueError, KeyError, TypeError) as error:
        print(f"rollout_picture: {error}", file=sys.stderr)
        return 2
    if not records:
        print(f"rollout_picture: {options.records} has no request; nothing to draw", file=sys.stderr)
        return 2
    options.picture.write_text(draw(records, events, options.title), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
