"""Queries of a dashboard's panels, read from Grafana's JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")
# What not every site has.
_NEEDS: Final = (
    (re.compile(r"\brackserve[_:]gpus?_"), "a GPU"),
    (re.compile(r"\brackserve_bundle_expires_seconds\b"), "a bundle that expires"),
)


@dataclass(frozen=True)
class PanelQuery:
    """One question of one panel, with the dashboard's variables filled in."""

    board: str
    row: str
    panel: str
    letter: str
    expr: str
    instant: bool

    @property
    def name(self) -> str:
        """Its place, for messages."""
        return f"{self.board} / {self.panel} / {self.letter}"

    @property
    def needs(self) -> str:
        """What only some sites have and it asks for; empty where every site answers it."""
        return next((what for pattern, what in _NEEDS if pattern.search(self.expr)), "")


def panels_of(board: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the panels of a dashboard's JSON in their order, each with the title of its row."""
    found: list[tuple[str, dict[str, Any]]] = []
    row = ""
    for panel in board["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        else:
            found.append((row, panel))
    return found


def queries(board: Mapping[str, Any], values: Mapping[str, str] | None = None) -> list[PanelQuery]:
    """Return every question of a dashboard's JSON.

    `values` are regular expressions for the variables, in RE2's syntax; one that is not named takes its "all".

    Raises:
        KeyError: An expression has a variable that the dashboard does not.
    """
    known = {variable["name"]: variable["allValue"] for variable in board["templating"]["list"]} | dict(values or {})

    def filled(expr: str) -> str:
        return _VARIABLE.sub(lambda found: known[found[1]], expr)

    return [
        PanelQuery(
            board["title"], row, panel["title"], target["refId"], filled(target["expr"]), bool(target.get("instant"))
        )
        for row, panel in panels_of(board)
        for target in panel["targets"]
    ]


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return every dashboard of a folder, by the name of its file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
