"""A picture of a dashboard as one SVG, by the grid of its JSON: a stand-in for Grafana's rendering, not Grafana.

It knows the four kinds of panel that the dashboards have, and of those what the dashboards set.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any, Final

from rackserve.dashboards import _plots
from rackserve.dashboards._plots import Box, Series, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Box", "Series", "Span", "named", "picture"]

COLUMN: Final = 60
ROW: Final = 36
GAP: Final = 8
_TOP: Final = 44
_DRAW: Final[dict[str, Callable[[Mapping[str, Any], Sequence[Series], Box, Span], str]]] = {
    "timeseries": _plots.lines,
    "stat": _plots.number,
    "state-timeline": _plots.bands,
    "table": _plots.table,
}


def named(legend: str, labels: Mapping[str, str]) -> str:
    """Return a series' name: its legend with {{label}} filled in."""
    if legend == "__auto":
        return ", ".join(f"{key}={value}" for key, value in labels.items() if key != "__name__")
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)


def picture(board: Mapping[str, Any], answers: Mapping[int, Sequence[Series]], span: Span, note: str) -> str:
    """Return the SVG of a dashboard.

    Args:
        board: Grafana's JSON.
        answers: Results of each panel's queries, by the panel's id.
        span: From when to when.
        note: Where the data comes from, for the line below the title.
    """
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    width, height = 24 * COLUMN + GAP, _TOP + bottom * ROW + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="DejaVu Sans">',
        f'<rect width="{width}" height="{height}" fill="#111217"/>',
        f'<text x="{GAP}" y="20" fill="#ffffff" font-size="16">{escape(board["title"])}</text>',
        f'<text x="{GAP}" y="36" fill="#8e8e8e" font-size="11">{escape(note)}</text>',
    ]
    for panel in board["panels"]:
        place = panel["gridPos"]
        box = Box(place["w"] * COLUMN - GAP, place["h"] * ROW - GAP)
        x, y = GAP + place["x"] * COLUMN, _TOP + place["y"] * ROW
        if panel["type"] == "row":
            parts.append(f'<text x="{x}" y="{y + 20}" fill="#ccccdc" font-size="13">▾ {escape(panel["title"])}</text>')
            continue
        parts.append(f'<svg x="{x}" y="{y}" width="{box.width}" height="{box.height}">')
        parts.append('<rect width="100%" height="100%" rx="2" fill="#181b1f" stroke="#25272c"/>')
        parts.append(f'<text x="8" y="17" fill="#ccccdc" font-size="12">{escape(panel["title"])}</text>')
        parts.append(_DRAW[panel["type"]](panel, answers.get(panel["id"], ()), box, span))
        parts.append("</svg>")
    return "\n".join([*parts, "</svg>"])
