"""From a description of a dashboard to the JSON that Grafana reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from rackserve.dashboards._board import VARIABLES
from rackserve.dashboards._parts import SOURCE

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

    from rackserve.dashboards._board import Board

_TAG: Final = "rackserve"


def model(board: Board) -> Dashboard:
    """Return the SDK's own model of a dashboard."""
    made = builders.Dashboard(board.title).uid(f"rackserve-{board.name}").description(board.what).tags([_TAG])
    made.readonly().timezone("browser").refresh("30s").time("now-1h", "now")
    made.tooltip(DashboardCursorSync.CROSSHAIR).link(
        builders.DashboardLink("rackserve")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([_TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
    for name in board.variables:
        made.with_variable(_variable(name))
    identity = 0
    for row in board.rows:
        identity += 1
        made.with_row(builders.Row(row.title).id(identity))
        for panel in row.panels:
            identity += 1
            built = panel.build()
            built.id_val = identity
            made.with_panel(panel)
    return made.build()


def text(board: Board) -> str:
    """Return a dashboard as JSON, the same bytes each time."""
    return json.dumps(model(board), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _variable(name: str) -> builders.QueryVariable:
    label, query = VARIABLES[name]
    variable = builders.QueryVariable(name).label(label).datasource(SOURCE).query(query)
    variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    # A series without the label is among "all" too.
    variable.multi(True).include_all(True).all_value(".*")
    return variable.current(VariableOption(selected=True, text=["All"], value=["$__all"]))
