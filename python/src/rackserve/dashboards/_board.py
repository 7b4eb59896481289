"""A dashboard as rows of panels, with its variables; and what several of them ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rackserve.dashboards._parts import Query, lines
from rackserve.programs.vllm_probe import STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

# Variable: what it is called, and where its values come from.
VARIABLES: Final = {
    "model": ("Model", 'label_values(up{job="vllm"}, model)'),
    "host": ("Host", "label_values(up, host)"),
    "instance": ("Instance", 'label_values(up{job="vllm", model=~"$model", host=~"$host"}, vllm_instance)'),
}

# What a panel of the fleet selects by.
MODEL: Final = 'model=~"$model"'
HOST: Final = 'host=~"$host"'
HERE: Final = f"{MODEL}, {HOST}"
ONE: Final = f'{HERE}, vllm_instance=~"$instance"'

NAME: Final = "{{host}} {{vllm_instance}}"

QUANTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))

TTFT_LIMIT: Final = Query("rackserve:limit:ttft_seconds", "limit")
ITL_LIMIT: Final = Query("rackserve:limit:itl_seconds", "limit")
BUDGET: Final = (
    Query("rackserve:limit:slo_budget", "budget"),
    Query("14.4 * rackserve:limit:slo_budget", "pages"),
)
ERRORS_LIMIT: Final = Query("rackserve:limit:http_errors", "limit")

_COLORS: Final = {
    "starting": "blue",
    "ready": "green",
    "busy": "dark-green",
    "hung": "red",
    "corrupt": "purple",
    "stopped": "orange",
    "failed": "dark-red",
}
# What the probe says as a number, since a timeline has one series for each instance.
STATE_NAMES: Final = {code: (state, _COLORS[state]) for code, state in enumerate(STATES, 1)}


@dataclass(frozen=True)
class Row:
    """A title and the panels below it, from left to right."""

    title: str
    panels: tuple[Builder[Panel], ...]


@dataclass(frozen=True)
class Board:
    """A dashboard. `name` is that of its file and, after "rackserve-", what Grafana finds it by."""

    name: str
    title: str
    what: str
    variables: tuple[str, ...]
    rows: tuple[Row, ...]


def state_code(selector: str) -> str:
    """Return the expression for the state of each selected instance, as a number of STATE_NAMES."""
    states = (f'rackserve_instance_state{{{selector}, state="{s}"}} * {c}' for c, (s, _) in STATE_NAMES.items())
    return f"sum by (host, vllm_instance) ({' or '.join(states)})"


def quantiles(series: str, selector: str, by: str) -> tuple[Query, ...]:
    """Return the median, the 95th and the 99th percentile of a recorded histogram, for each value of a label."""
    inner = f"sum by ({by}, le) ({series}{{{selector}}})"
    return tuple(Query(f"histogram_quantile({q}, {inner})", f"{{{{{by}}}}} {name}") for q, name in QUANTILES)


def shares(ratio: str) -> list[Query]:
    """Return a recorded share of each model over the two windows that its alert compares."""
    return [
        Query(f"rackserve:{ratio}:ratio{s}{{{MODEL}}}", f"{{{{model}}}} {n}")
        for s, n in (("5m", "5 min"), ("1h", "1 h"))
    ]


def disk_left(what: str, *, width: int = 8) -> Builder[Panel]:
    """Return the panel of the free share of each filesystem, with the limits of DiskFilling and DiskFull."""
    sizes = f'node_filesystem_avail_bytes{{mountpoint!~"/run/.*", {HOST}}} / node_filesystem_size_bytes'
    limits = [
        Query("rackserve:limit:disk_free_warning", "warning"),
        Query("rackserve:limit:disk_free_critical", "pages"),
    ]
    return lines(
        "Disk left", what, "percentunit", [Query(sizes, "{{host}} {{mountpoint}}")], limits=limits, width=width, most=1
    )


def key_figures(selector: str, by: str, descriptions: Sequence[str], *, count: str = "{}", legend: str = NAME) -> Row:
    """Return the row of the article's five metrics.

    Args:
        selector: what they are selected by.
        by: the label that has quantiles of its own for each value.
        descriptions: the description of each panel, in their order.
        count: the expression that requests are counted by; {} is their series.
        legend: how its lines are named.
    """
    running, waiting = (Query(count.format(f"rackserve:{s}{{{selector}}}"), legend) for s in ("running", "waiting"))
    first, between = (quantiles(f"rackserve:{s}_seconds:rate5m", selector, by) for s in ("ttft", "itl"))
    cache = Query(f"rackserve:kv_usage{{{selector}}}", NAME)
    return Row(
        "Key figures",
        (
            lines("Requests running", descriptions[0], "short", [running]),
            lines("Requests waiting", descriptions[1], "short", [waiting]),
            lines("KV cache in use", descriptions[2], "percentunit", [cache], most=1),
            lines("Time to first token", descriptions[3], "s", first, limits=[TTFT_LIMIT], width=12),
            lines("Time between tokens", descriptions[4], "s", between, limits=[ITL_LIMIT], width=12),
        ),
    )
