"""Which panels have something to show: Prometheus's answers to what they ask."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rackserve.dashboards.panels import PanelQuery


def numbers(answer: Mapping[str, Any]) -> int:
    """Return how many series with a number there are in Prometheus's answer to an instant query.

    A NaN is none: that is what a share or a percentile of nothing is.
    """
    if answer.get("status") != "success":
        return 0
    data = answer["data"]
    values = [data["result"]] if data["resultType"] == "scalar" else [row["value"] for row in data["result"]]
    return sum(not math.isnan(float(value)) for _, value in values)


def silent(answers: Iterable[tuple[PanelQuery, Mapping[str, Any]]]) -> list[PanelQuery]:
    """Return the questions that have no answer with a number in it."""
    return [query for query, answer in answers if numbers(answer) == 0]
