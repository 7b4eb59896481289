"""Dashboards are what the generator writes, Grafana's model reads them, and every panel asks for what there is."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from rackserve.dashboards import grafana, live, panels
from rackserve.dashboards.boards import BOARDS
from testing.alerts.expressions import metrics_of
from testing.alerts.series import ROOT, known_series

FOLDER = ROOT / "roles/grafana/files/dashboards"
FILES = panels.read(FOLDER)
QUERIES = [query for board in FILES.values() for query in panels.queries(board)]
# Prometheus's own series of what is firing.
SERIES = known_series() | {"ALERTS"}
FIVE = ["Requests running", "Requests waiting", "KV cache in use", "Time to first token", "Time between tokens"]


def unknown(expr: str) -> set[str]:
    return metrics_of(expr) - SERIES


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_file_is_what_the_generator_writes(board: Any) -> None:
    assert (FOLDER / f"{board.name}.json").read_text(encoding="utf-8") == grafana.text(board)


def test_there_is_a_file_for_every_dashboard_and_the_reverse() -> None:
    assert sorted(FILES) == sorted(board.name for board in BOARDS)


@pytest.mark.parametrize("name", FILES)
def test_the_sdks_own_model_reads_a_file_and_loses_nothing(name: str) -> None:
    register_default_plugins()
    read = Dashboard.from_json(FILES[name])
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_has_what_grafana_finds_it_by(name: str) -> None:
    board = FILES[name]
    assert board["uid"] == f"rackserve-{name}"
    assert "rackserve" in board["tags"]
    identities = [panel["id"] for panel in board["panels"]]
    assert identities == list(range(1, len(identities) + 1))


@pytest.mark.parametrize("name", FILES)
def test_no_two_panels_overlap_and_none_leaves_the_grid(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in FILES[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not taken & cells, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", ["fleet", "instance"])
def test_the_articles_five_come_first(name: str) -> None:
    assert [panel["title"] for _, panel in panels.panels_of(FILES[name])][:5] == FIVE


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_every_expression_parses_and_asks_for_what_there_is(query: panels.PanelQuery) -> None:
    promql_parser.parse(query.expr)
    assert unknown(query.expr) == set()


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ("sum(vllm:gpu_cache_usage_perc_total)", {"vllm:gpu_cache_usage_perc_total"}),
        ("rackserve:runing or vector(0)", {"rackserve:runing"}),
        ("rackserve:limit:ttft", {"rackserve:limit:ttft"}),
    ],
)
def test_a_wrong_name_is_found(wrong: str, found: set[str]) -> None:
    assert unknown(wrong) == found


def test_what_is_no_promql_is_refused() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        metrics_of("sum(rate(up[5m])")


@pytest.mark.parametrize("name", FILES)
def test_engines_are_asked_for_by_names_that_no_release_changes(name: str) -> None:
    asked = {metric for query in panels.queries(FILES[name]) for metric in metrics_of(query.expr)}
    assert {metric for metric in asked if metric.startswith("vllm:")} <= {"vllm:cache_config_info"}


@pytest.mark.parametrize("name", FILES)
def test_a_variable_is_used_or_not_there(name: str) -> None:
    text = json.dumps(FILES[name])
    for variable in FILES[name]["templating"]["list"]:
        assert re.search(rf"\${variable['name']}\b", text), variable["name"]


def test_an_unknown_variable_is_no_expression() -> None:
    board = json.loads(json.dumps(FILES["edge"]))
    board["panels"][1]["targets"][0]["expr"] = 'up{host=~"$hots"}'
    with pytest.raises(KeyError, match="hots"):
        panels.queries(board)


def test_values_of_variables_are_filled_in() -> None:
    (first, *_) = panels.queries(FILES["instance"], {"model": "chat", "instance": "a|b"})
    assert first.expr == 'rackserve:running{model=~"chat", host=~".*", vllm_instance=~"a|b"}'


@pytest.mark.parametrize("name", ["fleet", "instance"])
def test_latencies_are_drawn_with_the_limits_of_the_alerts(name: str) -> None:
    by_title = {panel["title"]: panel for _, panel in panels.panels_of(FILES[name])}
    for title, limit in (("Time to first token", "ttft_seconds"), ("Time between tokens", "itl_seconds")):
        assert by_title[title]["targets"][-1]["expr"] == f"rackserve:limit:{limit}"


def answer(*values: str) -> dict[str, Any]:
    rows = [{"metric": {}, "value": [0, value]} for value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": rows}}


@pytest.mark.parametrize(
    ("found", "count"),
    [
        (answer(), 0),
        (answer("NaN", "NaN"), 0),
        (answer("NaN", "0"), 1),
        ({"status": "success", "data": {"resultType": "scalar", "result": [0, "3"]}}, 1),
        ({"status": "error", "error": "bad"}, 0),
    ],
)
def test_a_series_counts_when_it_has_a_number(found: dict[str, Any], count: int) -> None:
    assert live.numbers(found) == count


def test_panels_without_data_are_named_with_what_they_need() -> None:
    (plain, *_) = panels.queries(FILES["fleet"])
    gpu = next(query for query in QUERIES if query.needs == "a GPU")
    lines = live.silent([(plain, answer("1")), (plain, answer()), (gpu, answer())])
    assert lines == [plain, gpu]
    wrong = dataclasses.replace(plain, expr="rackserve:runing")
    assert wrong.needs == ""


def test_what_needs_more_than_the_lab_has_is_listed_in_the_docs() -> None:
    page = (ROOT / "docs/reference/dashboards.md").read_text(encoding="utf-8")
    _, told_of = page.split("| dashboard / panel | needs |")
    listed = set(re.findall(r"(?m)^\| (.+?) / (.+?) \| (.+?) \|$", told_of))
    assert listed == {(query.board, query.panel, query.needs) for query in QUERIES if query.needs}
