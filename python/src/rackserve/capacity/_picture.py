"""How the memory is spent, drawn: one bar, in a terminal or as a self-contained SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from rackserve.capacity._memory import GIB, Term

if TYPE_CHECKING:
    from rackserve.capacity._plan import Plan

_WIDTH: Final = 60
_MARKS: Final = {
    "weights": "█",
    "activations": "▓",
    "context": "▒",
    "CUDA graphs": "▚",
    "KV cache": "░",
    "left to others": "·",
}
_COLOURS: Final = {  # each differs in lightness from its neighbours, and from a light and a dark page
    "weights": "#3b6fb6",
    "activations": "#d9822b",
    "context": "#8a5fb0",
    "CUDA graphs": "#c2435a",
    "KV cache": "#2f9e6e",
    "left to others": "#9aa3ad",
}
_STYLE: Final = (
    "text{font:14px system-ui,sans-serif;fill:#1b1f24}.quiet{fill:#59636e}.edge{fill:none;stroke:#59636e}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9aa6b2}.edge{stroke:#9aa6b2}}"
)


def parts_of(plan: Plan) -> list[Term]:
    """Return every part of the memory in the order in which it is taken; their sizes add up to the whole."""
    budget = plan.budget
    how = "predicted" if budget.predicted else "given"
    parts = [*budget.terms, Term("KV cache", budget.available, how)]
    if budget.unused:
        parts.append(Term("left to others", budget.unused, f"utilization {plan.utilization:g}"))
    return parts


def bar(plan: Plan, width: int = _WIDTH) -> str:
    """Return a bar of characters and its legend."""
    parts = parts_of(plan)
    whole = sum(part.size for part in parts) or 1
    edges = [0]
    for part in parts:
        edges.append(edges[-1] + part.size)
    columns = [round(edge * width / whole) for edge in edges]
    drawn = "".join(
        _MARKS[part.name] * (right - left) for part, left, right in zip(parts, columns[:-1], columns[1:], strict=True)
    )
    legend = [f"  {_MARKS[part.name]} {part.name:<15}{part.size / GIB:>9.2f} GiB  {part.how}" for part in parts]
    return "\n".join([f"  [{drawn}]", *legend])


def svg(plan: Plan) -> str:
    """Return the same picture as an SVG that needs nothing else, for light and dark pages."""
    parts = parts_of(plan)
    whole = sum(part.size for part in parts) or 1
    title = escape(f"{plan.shape.model_type}: where {whole / GIB:.1f} GiB go")
    shapes, legend, left = [], [], 20.0
    for row, part in enumerate(parts):
        width = 680 * part.size / whole
        label = escape(f"{part.name}: {part.size / GIB:.2f} GiB")
        fill = _COLOURS[part.name]
        shapes.append(
            f'<rect x="{left:.2f}" y="44" width="{width:.2f}" height="48" fill="{fill}"><title>{label}</title></rect>'
        )
        y = 124 + 24 * row
        legend.append(f'<rect x="20" y="{y - 12}" width="14" height="14" rx="2" fill="{fill}"/>')
        legend.append(f'<text x="42" y="{y}">{label}</text>')
        legend.append(f'<text x="300" y="{y}" class="quiet">{escape(part.how)}</text>')
        left += width
    height = 124 + 24 * len(parts)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" role="img" aria-label="{title}">',
            f"<title>{title}</title><style>{_STYLE}</style>",
            f'<text x="20" y="28">{title}</text>',
            *shapes,
            '<rect x="20" y="44" width="680" height="48" class="edge"/>',
            *legend,
            "</svg>\n",
        ]
    )
