"""What edges counted of an instance, and which alerts are new and about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rackserve.ansible.module_utils import rackserve_soak as soak

PAGE = """# HELP rackserve_edge_upstream_requests_total Attempts
rackserve_edge_upstream_requests_total{upstream="gpu1:a",status="200"} 90
rackserve_edge_upstream_requests_total{upstream="gpu1:a",status="502"} 3
rackserve_edge_upstream_requests_total{upstream="gpu1:a",status="504"} 1
rackserve_edge_upstream_requests_total{upstream="gpu1:a",status="500_grammar"} 4
rackserve_edge_upstream_requests_total{upstream="gpu2:a",status="none"} 2
rackserve_edge_upstream_broken_answers_total{upstream="gpu1:a"} 2
rackserve_edge_upstream_broken_answers_total{upstream="gpu2:a"} 0
rackserve_edge_requests_total{client="x",model="m",status="500"} 7
"""


def test_a_page_is_read_by_instance() -> None:
    assert soak.counts_of(PAGE) == {
        "gpu1:a": {"requests": 98.0, "errors": 4.0, "broken": 2.0},
        "gpu2:a": {"requests": 2.0, "errors": 0.0, "broken": 0.0},
    }


def row(requests: float, errors: float = 0, broken: float = 0) -> dict[str, float]:
    return {"requests": requests, "errors": errors, "broken": broken}


def test_counts_of_all_edges_are_added_and_a_restart_is_seen() -> None:
    before = {"e1": {"a": row(10, 1)}, "e2": {"a": row(50, 5)}}
    after = {"e1": {"a": row(15, 1), "b": row(2)}, "e2": {"a": row(3, 1)}, "e3": {"a": row(1000)}}
    assert soak.grown(before, after) == {"a": row(8, 1), "b": row(2)}


@pytest.mark.parametrize(
    ("own", "other", "ok"),
    [
        (row(0), row(100), None),
        (row(100), row(100), True),
        (row(100, 1), row(100), True),
        (row(100, 5), row(1000), False),
        (row(100, 0, 5), row(1000), False),
        (row(100, 5), row(1000, 50), True),
        (row(100, 20), row(1000, 50), False),
        (row(50, 1), row(500), True),
        (row(50, 2), row(500), False),
        (row(50, 2), row(0), False),
        (row(3, 3, 3), row(0), False),
    ],
)
def test_an_instance_may_not_fail_more_often_than_the_others(own: Any, other: Any, *, ok: bool | None) -> None:
    found = soak.judge_soak("i", "a", ["b"], {"a": own, "b": other}, seconds=60, most_percent=1)
    assert found["ok"] is ok, found


def test_no_traffic_is_said() -> None:
    found = soak.judge_soak("gpu1:a", "a", [], {}, seconds=60, most_percent=1)
    assert (found["ok"], found["line"]) == (None, "gpu1:a: soak: not compared: no request came in 60 s")


def alert(name: str, state: str = "firing", **labels: str) -> dict[str, Any]:
    return {"state": state, "labels": {"alertname": name, **labels}}


@pytest.mark.parametrize(
    ("alerts", "ok"),
    [
        ([], True),
        ([alert("A", host="gpu1")], False),
        ([alert("A", instance="10.0.0.1:8000")], False),
        ([alert("A", upstream="gpu1:a")], False),
        ([alert("A", host="gpu1", state="pending")], True),
        ([alert("A", host="gpu2")], True),
        ([alert("Old", host="gpu1")], True),
        ([alert("Old", host="gpu1", instance="10.0.0.1:9100")], False),
        (None, None),
    ],
)
def test_a_new_alert_about_the_host_fails(alerts: Any, ok: Any) -> None:
    found = soak.judge_alerts("i", [alert("Old", host="gpu1")], alerts, ["gpu1", "10.0.0.1", "gpu1:a"])
    assert found["ok"] is ok


def test_the_alerts_of_prometheus_are_read() -> None:
    assert soak.alerts_of(json.dumps({"data": {"alerts": [{"state": "firing"}]}})) == [{"state": "firing"}]
    assert soak.alerts_of("no") is None


def test_what_the_module_read_is_judged() -> None:
    def read(host: str, time: float, own: float, alerts: Any = None) -> dict[str, Any]:
        counts = {} if alerts is not None else {"gpu1:a": row(own, own / 10), "gpu2:a": row(1000)}
        return {"host": host, "time": time, "counts": counts, "alerts": alerts}

    about = {"instance": "gpu1:a", "label": "gpu1:a", "peers": ["gpu2:a"], "names": ["gpu1"], "most_percent": 1}
    before = [read("e1", 100.0, 0), read("e2", 100.0, 100), read("mon", 100.0, 0, [])]
    after = [read("mon", 161.0, 0, [alert("A", host="gpu1")]), read("e2", 160.0, 100), read("e1", 160.0, 50)]
    found = soak.soak_gates(about, before, after)
    assert [one["ok"] for one in found] == [False, False]
    assert found[0]["figures"] | {"chance": 0} == {
        "seconds": 61.0, "requests": 50, "errors": 5, "broken": 0, "others": 0, "others_failed": 0, "chance": 0,
    }  # fmt: skip
    quiet = soak.soak_gates(about, before[:2], before[:2])
    assert [one["ok"] for one in quiet] == [None, None]
