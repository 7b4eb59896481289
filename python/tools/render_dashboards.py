"""Draws the dashboards from a Prometheus, each as a PNG: a stand-in for Grafana's rendering, for the docs.

    python python/tools/render_dashboards.py URL FOLDER [--board NAME] [--minutes 30] [--end SECONDS] [--note TEXT]

Needs Chromium (Debian's `chromium`), which turns the SVG into a picture and uses no network.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from rackserve.dashboards import panels
from rackserve.dashboards.picture import Series, Span, named, picture

DASHBOARDS = Path(__file__).parents[2] / "roles/grafana/files/dashboards"
POINTS = 240


def ask(client: httpx.Client, board: dict[str, Any], span: Span) -> dict[int, list[Series]]:
    """Return the query results of every panel: over the span, or at its end where it asks for one moment."""
    answers: dict[int, list[Series]] = {}
    expressions = iter(panels.queries(board))
    for _, panel in panels.panels_of(board):
        for target in panel["targets"]:
            query = next(expressions)
            if query.instant:
                where, when = "/api/v1/query", {"time": f"{span.end}"}
            else:
                step = max(5, round((span.end - span.start) / POINTS))
                where, when = "/api/v1/query_range", {"start": f"{span.start}", "end": f"{span.end}", "step": f"{step}"}
            answer = client.get(where, params={"query": query.expr, **when}).raise_for_status().json()
            for row in answer["data"]["result"]:
                points = [(float(at), float(value)) for at, value in row.get("values") or [row["value"]]]
                name = named(target["legendFormat"], row["metric"])
                answers.setdefault(panel["id"], []).append(Series(query.letter, name, row["metric"], points))
    return answers


def photograph(svg: str, target: Path) -> None:
    """Have Chromium write an SVG as PNG, at the size that it says."""
    size = re.search(r'width="(\d+)" height="(\d+)"', svg)
    assert size, "a picture says how large it is"  # noqa: S101
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "page.html"
        page.write_text(f'<!doctype html><meta charset="utf-8"><body style="margin:0">{svg}', encoding="utf-8")
        quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking")
        here = (f"--user-data-dir={scratch}/profile", f"--window-size={size[1]},{size[2]}", f"--screenshot={target}")
        subprocess.run(["chromium", *quiet, *here, str(page)], check=True, capture_output=True, timeout=180)


def main(argv: list[str] | None = None) -> int:
    """Draw each dashboard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of Prometheus, as http://127.0.0.1:9090")
    parser.add_argument("folder", type=Path, help="for the pictures")
    parser.add_argument("--board", action="append", help="only this one; may be repeated")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--end", type=float, default=None, help="seconds since the epoch; now, if it is left out")
    parser.add_argument("--note", default="the lab", help="where the data comes from")
    arguments = parser.parse_args(argv)
    end = arguments.end or time.time()
    span = Span(end - 60 * arguments.minutes, end)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with httpx.Client(base_url=arguments.url, timeout=60) as client:
        for name, board in panels.read(DASHBOARDS).items():
            if arguments.board and name not in arguments.board:
                continue
            note = f"Drawn by rackserve's renderer, a stand-in for Grafana's, of Prometheus's answers: {arguments.note}"
            target = (arguments.folder / f"{name}.png").resolve()
            photograph(picture(board, ask(client, board, span), span, note), target)
            print(f"{target}: {target.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
