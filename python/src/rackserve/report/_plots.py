"""Pictures of a measurement as inline SVG: no script, no font, nothing from elsewhere. Their colours are the page's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rackserve.bench import BenchResult, Distribution, Level

_WIDTH: Final = 480
_LEFT: Final = 84
_RIGHT: Final = 456
_TOP: Final = 34
_ROW: Final = 40
_THOUSAND: Final = 1000.0
_STEPS: Final = 4


def plots_of(result: BenchResult) -> list[Markup]:
    """Return the four pictures: time to first token, between tokens, end to end, tokens per second."""
    spreads: list[tuple[str, Callable[[Level], Distribution | None]]] = [
        ("Time to first token", lambda level: level.ttft_ms),
        ("Between tokens", lambda level: level.itl_ms),
        ("End to end", lambda level: level.e2e_ms),
    ]
    labels = [f"{level.load:g}{' at once' if result.unit == 'requests at once' else ' / s'}" for level in result.levels]
    drawn = [
        _spread(title, [(label, of(level)) for label, level in zip(labels, result.levels, strict=True)])
        for title, of in spreads
    ]
    speeds = [(label, level.output_tokens_per_s) for label, level in zip(labels, result.levels, strict=True)]
    return [*drawn, _bars("Output tokens per second", speeds)]


def nice_ceiling(value: float) -> float:
    """Return the smallest of 1, 1.2, 1.6, 2, 3, 4, 6, 8 times a power of ten that is not below a value."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 1.2, 1.6, 2, 3, 4, 6, 8) if step * power >= value), 10 * power)


def _spread(title: str, rows: Sequence[tuple[str, Distribution | None]]) -> Markup:
    most = max((found.max for _, found in rows if found), default=0.0)
    in_seconds = most > 2 * _THOUSAND
    unit, scale = ("s", _THOUSAND) if in_seconds else ("ms", 1.0)
    top = nice_ceiling(most / scale)
    shapes, captions = [], []
    for number, (label, found) in enumerate(rows):
        y = _TOP + _ROW * number + _ROW / 2
        shapes.append(_label(label, y))
        if found is None:
            shapes.append(
                Markup('<text class="quiet" x="{}" y="{:.1f}">no whole answer</text>').format(_LEFT + 6, y + 4)
            )
            captions.append(f"{label}: no whole answer")
            continue
        low, mid, high, last, far = (
            _x(value / scale, top) for value in (found.min, found.p50, found.p95, found.p99, found.max)
        )
        shapes.append(
            Markup(
                '<line class="range" x1="{low:.1f}" x2="{far:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
                '<rect class="bulk" x="{mid:.1f}" y="{bulk_y:.1f}" width="{bulk:.1f}" height="12" rx="2"/>'
                '<line class="tail" x1="{last:.1f}" x2="{last:.1f}" y1="{up:.1f}" y2="{down:.1f}"/>'
                '<circle class="middle" cx="{mid:.1f}" cy="{y:.1f}" r="5"/>'
                '<text class="value" x="{mid_text:.1f}" y="{text_y:.1f}" text-anchor="{anchor}">{value}</text>'
            ).format(
                low=low,
                far=max(far, low + 1),
                mid=mid,
                y=y,
                bulk_y=y - 6,
                bulk=max(high - mid, 1),
                last=last,
                up=y - 9,
                down=y + 9,
                mid_text=mid if mid < (_LEFT + _RIGHT) / 2 else far,
                anchor="start" if mid < (_LEFT + _RIGHT) / 2 else "end",
                text_y=y - 10,
                value=_number(found.p50 / scale),
            )
        )
        captions.append(
            f"{label}: p50 {_number(found.p50 / scale)}, p95 {_number(found.p95 / scale)}, p99 "
            f"{_number(found.p99 / scale)}, largest {_number(found.max / scale)} {unit}"
        )
    return _frame(title, unit, top, shapes, captions)


def _bars(title: str, rows: Sequence[tuple[str, float]]) -> Markup:
    top = nice_ceiling(max((value for _, value in rows), default=0.0))
    shapes, captions = [], []
    for number, (label, value) in enumerate(rows):
        y = _TOP + _ROW * number + _ROW / 2
        end = _x(value, top)
        inside = end > (_LEFT + _RIGHT) / 2
        shapes.append(_label(label, y))
        shapes.append(
            Markup(
                '<rect class="bar" x="{x}" y="{top:.1f}" width="{width:.1f}" height="20" rx="2"/>'
                '<text class="{kind}" x="{at:.1f}" y="{base:.1f}" text-anchor="{anchor}">{value}</text>'
            ).format(
                x=_LEFT,
                top=y - 10,
                width=max(end - _LEFT, 1),
                kind="inside" if inside else "value",
                at=end - 6 if inside else end + 6,
                base=y + 4,
                anchor="end" if inside else "start",
                value=_number(value),
            )
        )
        captions.append(f"{label}: {_number(value)}")
    return _frame(title, "tokens/s", top, shapes, captions)


def _frame(title: str, unit: str, top: float, shapes: Sequence[Markup], captions: Sequence[str]) -> Markup:
    bottom = _TOP + _ROW * len(captions)
    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
            '<text class="tick" x="{x:.1f}" y="{base}" text-anchor="middle">{value}</text>'
        ).format(x=_x(value, top), top=_TOP, bottom=bottom, base=bottom + 18, value=_number(value))
        for value in (top * step / _STEPS for step in range(_STEPS + 1))
    )
    return Markup(
        '<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{captions}">'
        '<text class="title" x="0" y="16">{title} <tspan class="quiet">({unit})</tspan></text>{grid}{shapes}</svg>'
    ).format(
        width=_WIDTH,
        height=bottom + 26,
        captions=f"{title}. {'; '.join(captions)}",
        title=title,
        unit=unit,
        grid=grid,
        shapes=Markup("").join(shapes),
    )


def _label(label: str, y: float) -> Markup:
    return Markup('<text class="label" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
        _LEFT - 10, y + 4, escape(label)
    )


def _x(value: float, top: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * min(value / top, 1.0)


def _number(value: float) -> str:
    """Return three digits that matter, or all before the point."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
