"""Every alert has a case, a section of the docs and a cause; every metric of its expression is exposed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rackserve.vllm import releases
from testing.alerts.expressions import metrics_of
from testing.alerts.promtool import CASES, GPUS
from testing.alerts.series import ROOT, RULES, SUFFIXES, known_series, recorded

DOCS = (ROOT / "docs/how-to/alerts.md").read_text(encoding="utf-8")
H200 = ROOT / "python/tests/data/h200"
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}


def test_every_alert_has_a_case_and_the_reverse() -> None:
    assert {case["alert"] for case in CASES} == set(ALERTS)
    assert [case["alert"] for case in CASES if "silent" not in case] == ["Watchdog"]


def test_every_alert_has_a_section_of_the_docs_and_the_reverse() -> None:
    assert re.findall(r"(?m)^### (\w+)$", DOCS) == list(dict.fromkeys(re.findall(r"(?m)^### (\w+)$", DOCS)))
    assert set(re.findall(r"(?m)^### (\w+)$", DOCS)) == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_is_why_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "none"}
    assert sorted(alert["annotations"]) == ["cause", "runbook", "summary"]
    assert alert["annotations"]["cause"].endswith(".")
    assert alert["annotations"]["runbook"] == f"docs/how-to/alerts.md#{name.lower()}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_metric_of_a_rule_is_exposed(rule: dict[str, Any]) -> None:
    assert metrics_of(rule["expr"]) - known_series() == set()


def test_the_probe_and_the_alert_of_a_hung_engine_use_the_same_series() -> None:
    (rule,) = [rule for rule in RULES if rule.get("record") == "rackserve:steps:changes2m"]
    assert metrics_of(rule["expr"]) == {name for release in releases().values() for name in release.steps}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["alert"])
def test_a_case_uses_series_that_are_exposed(case: dict[str, Any]) -> None:
    series = {key.split("{")[0] for side in ("fires", "silent") for key in case.get(side, {})}
    assert series - known_series() == set()


@pytest.mark.parametrize("case", GPUS, ids=lambda case: case["name"])
def test_the_gpu_series_of_a_case_are_exposed(case: dict[str, Any]) -> None:
    assert {key.split("{")[0] for key in case["series"]} - known_series() == set()
    assert set(case["expected"]) - recorded() == set()


def test_a_real_gpu_exposes_what_rules_need_of_gpus() -> None:
    pages = [(H200 / name).read_text(encoding="utf-8") for name in ("nvitop.txt", "host_metrics.txt")]
    there = set(re.findall(r"(?m)^(\w+)\{", "\n".join(pages)))
    asked = {name for rule in RULES for name in metrics_of(rule["expr"]) if name.startswith(("gpu_", "rackserve_gpu"))}
    assert len(asked) > 10
    assert asked - there == {"rackserve_gpu_fields_unread"}  # of the program, for every GPU: test_host_metrics.py


@pytest.mark.parametrize("version", releases())
def test_every_release_fills_the_names_that_alerts_are_made_of(version: str) -> None:
    has = {name + end for name in releases()[version].metrics.values() for end in SUFFIXES}
    made = {
        rule["record"]: metrics_of(rule["expr"]) for rule in RULES if rule.get("record", "").startswith("rackserve:")
    }
    empty = {
        record
        for record, asked in made.items()
        if any(m.startswith(("vllm:", "http_")) for m in asked) and not asked & has
    }
    assert empty <= (
        {"rackserve:rejections:rate5m"} | ({"rackserve:http_errors:ratio5m"} if version == "0.6.4.post1" else set())
    )


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("sum by (host, le) (rate(a_total[5m])) / (max(b) > 0)", {"a_total", "b"}),
        ('up{job="vllm"} == 0 unless on (host) c{x=~"d|e"} == 1', {"up", "c"}),
        ("f:g < 0.5 * quantile_over_time(0.5, f:g[1d] offset 1h)", {"f:g"}),
        ('label_replace(vllm:n, "model", "$1", "model_name", "(.*)")', {"vllm:n"}),
        ("count(count by (version) (i)) > 1e3", {"i"}),
    ],
)
def test_names_are_found_in_expressions(expression: str, names: set[str]) -> None:
    assert metrics_of(expression) == names
