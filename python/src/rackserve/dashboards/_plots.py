"""The four kinds of panel, as SVG."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from rackserve.dashboards._units import readable, scale_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PALETTE: Final = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#b877d9", "#5794f2", "#ff9830", "#37872d", "#56a64b")
_COLORS: Final = {
    "green": "#73bf69",
    "dark-green": "#37872d",
    "red": "#f2495c",
    "dark-red": "#c4162a",
    "orange": "#ff9830",
    "blue": "#5794f2",
    "purple": "#b877d9",
    "text": "#ccccdc",
}
_GREY: Final = "#8e8e8e"
# Pixels: of a letter, of a legend's left side, and of a band in which words are read.
_LETTER: Final = 7
_LEFT: Final = 10.0
_READABLE: Final = 14


@dataclass(frozen=True)
class Box:
    """Size of a panel in pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class Span:
    """From when to when, in seconds since the epoch."""

    start: float
    end: float


@dataclass(frozen=True)
class Series:
    """One answer: the letter of its question, its name, its labels, and (time, value) pairs."""

    letter: str
    name: str
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """Newest value that is a number; NaN where there is none."""
        return next((value for _, value in reversed(self.points) if not math.isnan(value)), math.nan)


def _text(x: float, y: float, words: str, color: str = _GREY, *, size: int = 10, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" fill="{color}" font-size="{size}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def _nothing(box: Box) -> str:
    return _text(box.width / 2, box.height / 2, "No data", size=14, anchor="middle")


def _step(most: float) -> float:
    """Return a round distance between marks, of which about four fit."""
    raw = most / 4 or 1
    power: float = 10.0 ** math.floor(math.log10(raw))
    return next(power * size for size in (1, 2, 2.5, 5, 10) if power * size >= raw * 0.999)


def _clock(span: Span, x0: float, x1: float, y: float) -> list[str]:
    found = []
    for n in range(5):
        at = span.start + (span.end - span.start) * n / 4
        anchor = ("start", "middle", "middle", "middle", "end")[n]
        label = time.strftime("%H:%M", time.gmtime(at))
        found.append(_text(x0 + (x1 - x0) * n / 4, y, label, anchor=anchor))
    return found


def lines(panel: Mapping[str, Any], shown: Sequence[Series], box: Box, span: Span) -> str:
    """Return lines over time, with a scale, a clock and a legend."""
    shown = [series for series in shown if not math.isnan(series.last)]
    if not shown:
        return _nothing(box)
    defaults = panel["fieldConfig"]["defaults"]
    limits = {
        o["matcher"]["options"]
        for o in panel["fieldConfig"]["overrides"]
        if any(p["id"] == "custom.lineStyle" for p in o["properties"])
    }
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    drawn = (
        _stack([s for s in shown if s.name not in limits]) if stacked else [s for s in shown if s.name not in limits]
    )
    values = [v for s in drawn for _, v in s.points if math.isfinite(v)]
    # A limit far above everything would flatten the lines; it is drawn where it is not much higher.
    near = [s.last for s in shown if s.name in limits and s.last <= 4 * max(values, default=0) + 1e-9]
    # Of nothing but zeros the scale goes to one.
    highest = defaults.get("max") or max([*values, *near], default=0) or 1
    size = scale_of(highest, defaults["unit"])
    step = _step(highest / size) * size
    most = math.ceil(highest / step - 1e-9) * step
    x0, x1, y0, y1 = 58.0, box.width - 10.0, 30.0, box.height - 44.0

    def place(at: float, value: float) -> str:
        x = x0 + (x1 - x0) * (at - span.start) / (span.end - span.start)
        return f"{x:.1f},{y1 - (y1 - y0) * min(value, most) / most:.1f}"

    parts = []
    for n in range(round(most / step) + 1):
        y = y1 - (y1 - y0) * n * step / most
        parts.append(f'<line x1="{x0}" x2="{x1}" y1="{y:.1f}" y2="{y:.1f}" stroke="#25272c"/>')
        parts.append(_text(x0 - 6, y + 3, readable(n * step, defaults["unit"]), anchor="end"))
    parts += _clock(span, x0, x1, y1 + 14)
    keys: list[tuple[str, str]] = []
    for n, series in enumerate(drawn):
        color = _PALETTE[n % len(_PALETTE)]
        keys.append((series.name, color))
        for piece in _pieces(series.points):
            path = " ".join(place(at, value) for at, value in piece)
            if stacked:
                first, last = place(piece[0][0], 0), place(piece[-1][0], 0)
                parts.append(f'<polygon points="{first} {path} {last}" fill="{color}" fill-opacity="0.35"/>')
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.4"/>')
    for series in shown:
        if series.name in limits:
            high = series.last > most
            keys.append(
                (f"{series.name} {readable(series.last, defaults['unit'])}{' (above)' if high else ''}", "#f2495c")
            )
            if not high:
                ends = " ".join(place(at, series.last) for at in (span.start, span.end))
                parts.append(f'<polyline points="{ends}" stroke="#f2495c" stroke-dasharray="8 6" stroke-width="1.4"/>')
    return "\n".join(parts + _legend(keys, box))


def _stack(shown: list[Series]) -> list[Series]:
    """Return series added up, the highest first so that those below are drawn over it."""
    sums: dict[float, float] = {}
    found = []
    for series in shown:
        for at, value in series.points:
            sums[at] = sums.get(at, 0) + (0 if math.isnan(value) else value)
        found.append(Series(series.letter, series.name, series.labels, [(at, sums[at]) for at, _ in series.points]))
    return found[::-1]


def _pieces(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Return runs of numbers with no more than one of their steps left out."""
    times = [at for at, _ in points]
    step = min((after - before for before, after in pairwise(times)), default=0)
    found: list[list[tuple[float, float]]] = []
    for at, value in points:
        if not math.isfinite(value):
            continue
        if found and at - found[-1][-1][0] <= 2 * step:
            found[-1].append((at, value))
        else:
            found.append([(at, value)])
    return found


def _legend(keys: Sequence[tuple[str, str]], box: Box) -> list[str]:
    found, x, y = [], _LEFT, box.height - 16.0
    for name, color in keys:
        wide = 26 + _LETTER * len(name) * 0.92
        if x + wide > box.width - 4 and x > _LEFT:
            x, y = _LEFT, y + 13
        if y > box.height:
            break
        found.append(f'<rect x="{x:.0f}" y="{y - 6:.0f}" width="12" height="3" fill="{color}"/>')
        found.append(_text(x + 16, y, name, "#ccccdc"))
        x += wide
    return found


def number(panel: Mapping[str, Any], shown: Sequence[Series], box: Box, span: Span) -> str:
    """Return the last value, in the colour of its step, over its past."""
    value = shown[0].last if shown else math.nan
    if math.isnan(value):
        return _nothing(box)
    defaults = panel["fieldConfig"]["defaults"]
    steps = [s for s in defaults["thresholds"]["steps"] if s["value"] is None or value >= s["value"]]
    color = _COLORS[steps[-1]["color"]]
    words = readable(value, defaults["unit"], defaults.get("decimals"))
    points = [(at, v) for at, v in shown[0].points if math.isfinite(v)]
    low, high = min(v for _, v in points), max(v for _, v in points)
    base, top = box.height - 1.0, box.height - 38.0

    def place(at: float, v: float) -> str:
        share = (v - low) / (high - low) if high > low else 0.5
        return f"{box.width * (at - span.start) / (span.end - span.start):.1f},{base - (base - top) * share:.1f}"

    path = " ".join(place(at, v) for at, v in points)
    first, last = place(points[0][0], low).split(",")[0], place(points[-1][0], low).split(",")[0]
    return (
        f'<polygon points="{first},{base} {path} {last},{base}" fill="{color}" fill-opacity="0.15"/>'
        f'<polyline points="{path}" fill="none" stroke="{color}" stroke-opacity="0.6"/>'
        + _text(box.width / 2, box.height / 2 + 12, words, color, size=30, anchor="middle")
    )


def bands(panel: Mapping[str, Any], shown: Sequence[Series], box: Box, span: Span) -> str:
    """Return a band for each series, coloured by the names of its values."""
    if not shown:
        return _nothing(box)
    names = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    x0, x1, y0, y1 = 150.0, box.width - 10.0, 28.0, box.height - 24.0
    tall = (y1 - y0) / len(shown)
    parts = []
    for n, series in enumerate(sorted(shown, key=lambda s: s.name)):
        y = y0 + n * tall
        parts.append(_text(x0 - 8, y + tall / 2 + 3, series.name, "#ccccdc", anchor="end"))
        runs: list[tuple[float, float, float]] = []
        for at, value in series.points:
            if runs and runs[-1][2] == value:
                runs[-1] = (runs[-1][0], at, value)
            else:
                runs.append((runs[-1][1] if runs else at, at, value))
        for start, end, value in runs:
            name = names.get(f"{value:.0f}", {"text": f"{value:g}", "color": "text"})
            left, right = (x0 + (x1 - x0) * (at - span.start) / (span.end - span.start) for at in (start, end))
            wide = max(right - left, 1)
            parts.append(
                f'<rect x="{left:.1f}" y="{y + tall * 0.12:.1f}" width="{wide:.1f}" height="{tall * 0.76:.1f}" '
                f'fill="{_COLORS[name["color"]]}" fill-opacity="0.85"/>'
            )
            if wide > _LETTER * len(name["text"]) + 8 and tall > _READABLE:
                parts.append(_text(left + 6, y + tall / 2 + 4, name["text"], "#111217"))
    return "\n".join(parts + _clock(span, x0, x1, y1 + 15))


def table(panel: Mapping[str, Any], shown: Sequence[Series], box: Box, _span: Span) -> str:
    """Return the last values, one line for each set of labels that the questions share."""
    organize = next(t["options"] for t in panel["transformations"] if t["id"] == "organize")
    columns = sorted(organize["indexByName"], key=organize["indexByName"].__getitem__)
    units = {o["matcher"]["options"]: p["value"] for o in panel["fieldConfig"]["overrides"] for p in o["properties"]}
    rows: list[dict[str, str | float]] = []
    for series in sorted(shown, key=lambda s: (s.letter, s.name)):
        cells: dict[str, str | float] = {key: v for key, v in series.labels.items() if key in columns}
        value = "Value" if "Value" in columns else f"Value #{series.letter}"
        same = [r for r in rows if all(r[key] == v for key, v in cells.items() if key in r) and value not in r]
        for row in same or [{}]:
            row.update(cells | ({value: series.last} if value in columns else {}))
            if row not in rows:
                rows.append(row)
    if not rows:
        return _nothing(box)
    wide = (box.width - 16) / len(columns)
    parts = []
    for n, key in enumerate(columns):
        head = organize["renameByName"][key]
        parts.append(_text(10 + n * wide, 40, head, "#6e9fff", size=11))
        cells_of = [row.get(key, "") for row in rows]
        words = [cell if isinstance(cell, str) else readable(cell, units.get(head, "short")) for cell in cells_of]
        parts += [_text(10 + n * wide, 62 + m * 22, each, "#ccccdc", size=11) for m, each in enumerate(words)]
    for m in range(len(rows)):
        parts.append(f'<line x1="8" x2="{box.width - 8}" y1="{46 + m * 22}" y2="{46 + m * 22}" stroke="#25272c"/>')
    return "\n".join(parts)
