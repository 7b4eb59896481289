"""A picture has the values of Prometheus in their places; a panel without a value says so."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from rackserve._paths import project_root
from rackserve.dashboards import panels
from rackserve.dashboards._units import readable, scale_of
from rackserve.dashboards.picture import Series, Span, named, picture

FILES = panels.read(project_root() / "roles/grafana/files/dashboards")
SPAN = Span(1000.0, 1600.0)


def svg(name: str, answers: dict[str, list[Series]]) -> str:
    """Return the picture of a dashboard; `answers` are by the titles of its panels."""
    board = FILES[name]
    by_id = {panel["id"]: answers[panel["title"]] for _, panel in panels.panels_of(board) if panel["title"] in answers}
    return picture(board, by_id, SPAN, "a test")


def series(letter: str, name: str, *values: float, **labels: str) -> Series:
    return Series(letter, name, labels, [(1000.0 + 100 * n, value) for n, value in enumerate(values)])


@pytest.mark.parametrize("name", FILES)
def test_without_values_every_panel_shows_no_data(name: str) -> None:
    drawn = svg(name, {})
    ET.fromstring(drawn)  # noqa: S314 - our own
    assert drawn.count("No data") == len(panels.panels_of(FILES[name]))


def test_a_line_goes_from_left_to_right_and_a_limit_is_dashed() -> None:
    answers = [series("A", "chat p50", 0, 1, 2, 3, 4, 5, 5), series("D", "limit", *[2.5] * 7)]
    drawn = svg("fleet", {"Time to first token": answers})
    assert drawn.count("No data") == len(panels.panels_of(FILES["fleet"])) - 1
    (dashed,) = re.findall(r'points="([\d., ]+)" stroke="#f2495c" stroke-dasharray', drawn)
    (line,) = re.findall(r'points="([\d., ]+)" fill="none" stroke="#73bf69" stroke-width="1.4"', drawn)
    first, *_, last = (tuple(map(float, point.split(","))) for point in line.split())
    assert first[0] < last[0]
    assert first[1] > last[1]
    assert float(dashed.split(",")[1].split()[0]) == pytest.approx((first[1] + last[1]) / 2, abs=0.1)
    assert "limit 2.5 s" in drawn


def test_a_limit_far_above_is_named_and_not_drawn() -> None:
    answers = [series("A", "chat p50", 0.1, 0.1), series("D", "limit", 2.5, 2.5)]
    drawn = svg("fleet", {"Time to first token": answers})
    assert "limit 2.5 s (above)" in drawn
    assert "stroke-dasharray" not in drawn


def test_a_hole_is_a_hole() -> None:
    answers = [series("A", "chat", 1, 1, math.nan, math.nan, math.nan, 1, 1)]
    assert svg("fleet", {"Requests running": answers}).count('fill="none" stroke="#73bf69" stroke-width="1.4"') == 2


@pytest.mark.parametrize(("value", "color"), [(2.0, "#73bf69"), (0.0, "#f2495c")])
def test_a_number_has_the_colour_of_its_step(value: float, color: str) -> None:
    drawn = svg("fleet", {"Instances up": [series("A", "", value, value)]})
    assert f'fill="{color}" font-size="30" text-anchor="middle">{value:g}</text>' in drawn


def test_a_state_is_named() -> None:
    drawn = svg("fleet", {"State": [series("A", "gpu1 a", 1, 2, 2, 2, 4, 4, 4)]})
    assert all(f">{state}</text>" in drawn for state in ("ready", "hung"))


def test_a_table_has_a_line_for_each_set_of_labels() -> None:
    here: dict[str, Any] = {"host": "gpu1", "vllm_instance": "a"}
    there: dict[str, Any] = {"host": "gpu2", "vllm_instance": "a"}
    answers = [
        series("A", "1", 3, **here, model="chat"),
        series("A", "2", 4, **there, model="chat"),
        series("C", "3", 0.5, **there, model="chat"),
        series("E", "4", 1, **here, state="busy"),
    ]
    drawn = svg("fleet", {"Instances": answers})
    rows = re.findall(r'y="(62|84)"[^>]*>([^<]+)</text>', drawn)
    assert [text for y, text in rows if y == "62"] == ["gpu1", "a", "chat", "busy", "3"]
    assert [text for y, text in rows if y == "84"] == ["gpu2", "a", "chat", "4", "50 %"]


def test_names_of_others_are_text() -> None:
    drawn = svg("fleet", {"Requests running": [series("A", "<script>&", 1, 1)]})
    assert "<script>" not in drawn
    assert "&lt;script&gt;&amp;" in drawn


def test_a_series_is_named_by_its_legend() -> None:
    assert named("{{host}} {{gone}}", {"host": "gpu1"}) == "gpu1 "
    assert named("__auto", {"__name__": "up", "host": "gpu1"}) == "host=gpu1"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0031, "s", "3.1 ms"),
        (0, "s", "0 s"),
        (75, "s", "1.25 min"),
        (0.125, "percentunit", "12.5 %"),
        (1.98e9, "hertz", "1.98 GHz"),
        (2**33, "bytes", "8 GiB"),
        (1234, "short", "1.23 k"),
        (math.nan, "s", "no data"),
        (math.inf, "d", "∞"),
        (1, "bool_yes_no", "yes"),
    ],
)
def test_a_number_is_readable(value: float, unit: str, text: str) -> None:
    assert readable(value, unit) == text


@pytest.mark.parametrize(
    ("highest", "unit", "size"),
    [(5 * 2**20, "bytes", 2**20), (90, "s", 1), (150, "s", 60), (0.2, "s", 1), (5000, "short", 1), (3, "Bps", 1)],
)
def test_a_scale_has_marks_in_a_unit_that_people_count_in(highest: float, unit: str, size: float) -> None:
    assert scale_of(highest, unit) == size
