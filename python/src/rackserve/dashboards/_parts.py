"""Panels: one function for each kind, over the SDK's builders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

# The data source that the role provisions, by a name that never changes: a dashboard of another site finds it too.
DATASOURCE_UID: Final = "rackserve-prometheus"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid=DATASOURCE_UID)

Steps = tuple[tuple[float | None, str], ...]
GOOD_UNLESS_ANY: Final[Steps] = ((None, "green"), (1, "red"))
BAD_IF_NONE: Final[Steps] = ((None, "red"), (1, "green"))
PLAIN: Final[Steps] = ((None, "blue"),)


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and how its series are named: {{label}} is replaced by a label's value."""

    expr: str
    legend: str = "__auto"


def lines(
    title: str,
    what: str,
    unit: str,
    queries: Sequence[Query],
    *,
    limits: Sequence[Query] = (),
    width: int = 8,
    most: float | None = None,
    stacked: bool = False,
) -> Builder[Panel]:
    """Return a panel of lines over time. `limits` are drawn dashed: the thresholds of alerts."""
    legend = common_builders.VizLegendOptions()
    legend.show_legend(True).display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    panel = timeseries.Panel().title(title).description(what).unit(unit).min(0).height(8).span(width)
    panel.datasource(SOURCE).legend(legend).tooltip(tooltip).line_width(1).fill_opacity(30 if stacked else 8)
    panel.show_points(common.VisibilityMode.NEVER)
    if most is not None:
        panel.max(most)
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    for query, letter in zip([*queries, *limits], "ABCDEFGHIJ", strict=False):
        panel.with_target(_target(query, letter).range())
    for limit in limits:
        dashed = [
            DynamicConfigValue("color", {"mode": FieldColorModeId.FIXED, "fixedColor": "red"}),
            DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
            DynamicConfigValue("custom.fillOpacity", 0),
            DynamicConfigValue("custom.stacking", {"mode": common.StackingMode.NONE, "group": "limit"}),
        ]
        panel.override_by_name(limit.legend, dashed)
    return panel


def number(
    title: str, what: str, unit: str, query: Query, *, steps: Steps = PLAIN, width: int = 4, decimals: int | None = None
) -> Builder[Panel]:
    """Return a panel with one number, its colour by `steps` (from which value on, colour) and its past behind it."""
    panel = stat.Panel().title(title).description(what).unit(unit).height(4).span(width).datasource(SOURCE)
    panel.with_target(_target(query, "A").range())
    panel.graph_mode(common.BigValueGraphMode.AREA).color_mode(common.BigValueColorMode.VALUE)
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    if decimals is not None:
        panel.decimals(decimals)
    return panel.thresholds(_thresholds(steps))


def states(
    title: str, what: str, query: Query, names: Mapping[int, tuple[str, str]], *, width: int = 12, height: int = 8
) -> Builder[Panel]:
    """Return a band for each series that shows in which of the named states (text, colour) it was and when."""
    results = {str(code): ValueMappingResult(text=text, color=color) for code, (text, color) in names.items()}
    panel = statetimeline.Panel().title(title).description(what).height(height).span(width).datasource(SOURCE)
    panel.with_target(_target(query, "A").range()).mappings([ValueMap(options=results)])
    panel.show_value(common.VisibilityMode.AUTO).row_height(0.8).fill_opacity(80)
    # Without steps the mappings alone give the colour.
    return panel.thresholds(_thresholds(((None, "text"),)))


def table_of(
    title: str,
    what: str,
    queries: Sequence[Query],
    columns: Mapping[str, str],
    *,
    units: Mapping[str, str] | None = None,
    width: int = 24,
    height: int = 8,
) -> Builder[Panel]:
    """Return a table: the last values of `queries`, one row for each set of labels that they share.

    `columns` names the columns in their order: a label, or "Value #A" for the first query; others are left
    out. `units` gives a column's unit, by the name that it is given.
    """
    panel = (
        table.Panel()
        .title(title)
        .description(what)
        .height(height)
        .span(width)
        .datasource(SOURCE)
        .align(common.FieldTextAlignment.AUTO)
    )
    for query, letter in zip(queries, "ABCDEFGHIJ", strict=False):
        panel.with_target(_target(query, letter).instant().format(PromQueryFormat.TABLE))
    # With one query Grafana does not number the value.
    names = {("Value" if len(queries) == 1 and key == "Value #A" else key): text for key, text in columns.items()}
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(names)}})
    )
    order = {key: position for position, key in enumerate(names)}
    panel.with_transformation(
        DataTransformerConfig(id_val="organize", options={"indexByName": order, "renameByName": names})
    )
    for column, unit in (units or {}).items():
        panel.override_by_name(column, [DynamicConfigValue("unit", unit)])
    return panel


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
    return target.datasource(SOURCE)


def _thresholds(steps: Steps) -> builders.ThresholdsConfig:
    marks = [Threshold(value=value, color=color) for value, color in steps]
    return builders.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(marks)
