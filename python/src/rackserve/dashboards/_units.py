"""A number as people read it, by the unit of Grafana's JSON."""

from __future__ import annotations

import math
from typing import Final

Scale = tuple[tuple[float, str], ...]
_ONE: Final[Scale] = ((1, ""),)
_PREFIXES: Final[Scale] = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_BINARY: Final[Scale] = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_SECONDS: Final[Scale] = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1, "s"))
# Unit of the JSON: its scale, and what stands behind.
_SCALES: Final[dict[str, tuple[Scale, str]]] = {
    "short": (_PREFIXES, ""),
    "hertz": (_PREFIXES, "Hz"),
    "bytes": (_BINARY, ""),
    "Bps": (_BINARY, "/s"),
    "s": (_SECONDS, ""),
    "percentunit": (((0.01, "%"),), ""),
    "reqps": (_ONE, "req/s"),
    "celsius": (_ONE, "°C"),
    "watt": (_ONE, "W"),
    "d": (_ONE, "d"),
    "x": (_ONE, "x"),
}


def readable(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value with its unit: shares as percent, bytes in powers of two, times in the largest unit they fill."""
    if not math.isfinite(value):
        return "no data" if math.isnan(value) else "∞"
    if unit == "bool_yes_no":
        return "yes" if value else "no"
    scales, end = _SCALES.get(unit, (_ONE, ""))
    size, name = next(((s, n) for s, n in scales if abs(value) >= s), scales[-1])
    return f"{_plain(value / size, decimals)} {name}{end}".rstrip()


def scale_of(highest: float, unit: str) -> float:
    """Return how many of the unit make one mark of a scale up to `highest`: a MiB, a minute, else 1."""
    scales, _ = _SCALES.get(unit, (_ONE, ""))
    return next((size for size, _ in scales if unit in {"bytes", "Bps", "s"} and highest >= 2 * size > 1), 1)


def _plain(value: float, decimals: int | None) -> str:
    return f"{value:.{decimals}f}" if decimals is not None else f"{float(f'{value:.3g}'):.12g}"
