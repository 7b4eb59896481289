"""Every expression of dashboards and rules, evaluated by Prometheus's own tool over recorded metrics."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from rackserve.dashboards import panels
from rackserve.vllm import releases
from testing.alerts.promtool import INSTANCE
from testing.alerts.series import ROOT, recorded

if TYPE_CHECKING:
    from testinfra.backend.base import CommandResult
    from testinfra.host import Host

DATA = ROOT / "python/tests/data"
QUERIES = [q for b in panels.read(ROOT / "roles/grafana/files/dashboards").values() for q in panels.queries(b)]
NEEDY = [query for query in QUERIES if query.needs]
RULE_FILES = ["/etc/prometheus/rackserve/*.yml"]
STEP_S = 8
# Bounds that the limits of the role are among, and the last one.
BOUNDS = ("0.2", "2.5", "+Inf")
OF_THE_EDGE = ("rackserve:edge_", "rackserve:upstream_")
OF_NO_RELEASE = ("rackserve:limit:", "rackserve:gpu_", *OF_THE_EDGE)
NOT_TOLD_BEFORE = {"rackserve:rejections:rate5m": "0.32.0", "rackserve:http_errors:ratio5m": "0.10.2"}


def promtool(host: Host, command: str, document: dict[str, Any]) -> CommandResult:
    host.check_output(f"printf %s {shlex.quote(yaml.safe_dump(document))} > /tmp/panels.yml")
    return host.run(f"promtool {command} /tmp/panels.yml")


def has_numbers(expr: str, at: str) -> dict[str, Any]:
    """Return the test that an expression has a series with a number; a NaN is not equal to itself."""
    return {
        "expr": f"count(({expr}) == ({expr})) > bool 0",
        "eval_time": at,
        "exp_samples": [{"labels": "{}", "value": 1}],
    }


def recorded_on_an_h100() -> list[dict[str, str]]:
    """Return what host_metrics.py told on an H100 while it worked and rested, as promtool takes it."""
    values: dict[str, list[str]] = defaultdict(list)
    for line in (DATA / "h100/host_metrics.jsonl").read_text(encoding="utf-8").splitlines():
        for sample in json.loads(line)[1].splitlines():
            name, value = sample.rsplit(" ", 1)
            values[name].append(value)
    return [
        {
            "series": name[:-1] + ("" if name.endswith("{}") else ",") + 'host="gpu1",job="node",instance="gpu1:9100"}',
            "values": " ".join(told),
        }
        for name, told in values.items()
    ]


def of_a_gpu(queries: list[panels.PanelQuery]) -> dict[str, Any]:
    day = {"series": 'rackserve_bundle_expires_seconds{host="gpu1"}', "values": "2000000000x40"}
    return {
        "rule_files": RULE_FILES,
        "evaluation_interval": f"{STEP_S}s",
        "tests": [
            {
                "interval": f"{STEP_S}s",
                "input_series": [*recorded_on_an_h100(), day],
                "promql_expr_test": [has_numbers(query.expr, "2m") for query in queries],
            }
        ],
    }


def test_every_expression_of_a_panel_is_one_for_prometheus(host: Host) -> None:
    rules = [{"record": "panel", "labels": {"at": str(n)}, "expr": q.expr} for n, q in enumerate(QUERIES)]
    done = promtool(host, "check rules", {"groups": [{"name": "panels", "rules": rules}]})
    assert (done.rc, done.stderr) == (0, "")
    assert f"{len(QUERIES)} rules found" in done.stdout


def test_panels_of_gpus_show_what_an_h100_told(host: Host) -> None:
    done = promtool(host, "test rules", of_a_gpu(NEEDY))
    assert done.rc == 0, done.stderr


def test_a_wrong_name_shows_nothing(host: Host) -> None:
    wrong = dataclasses.replace(NEEDY[0], expr=NEEDY[0].expr.replace("rackserve_", "rackserve_x"))
    assert wrong.expr != NEEDY[0].expr
    done = promtool(host, "test rules", of_a_gpu([wrong]))
    assert (done.rc, done.stderr.count("exp:")) == (1, 1)


def as_a_release_tells(version: str) -> list[dict[str, str]]:
    """Return a series for each metric that vllm_releases.yml has of a release, of the kind that its name says.

    The unit tests hold those names against the release's own wheel.
    """
    found = []
    for name in releases()[version].metrics.values():
        if name.endswith("_total"):
            more = 'status="2xx"' if name.startswith("http_") else 'finished_reason="stop"'
            found.append({"series": f"{name}{{{INSTANCE}, {more}}}", "values": "0+15x60"})
        elif name.endswith("_seconds"):
            buckets = ((f'_bucket{{{INSTANCE}, le="{bound}"}}', 15 + n) for n, bound in enumerate(BOUNDS))
            told = [*buckets, (f"_count{{{INSTANCE}}}", 17)]
            found += [{"series": name + more, "values": f"0+{each}x60"} for more, each in told]
        else:
            found.append({"series": f"{name}{{{INSTANCE}}}", "values": "0.5x60"})
    return found


def as_an_h200_told() -> list[dict[str, str]]:
    """Return every sample of the /metrics of vLLM 0.26.0 on an H200, as if each counted up by itself."""
    found = []
    for line in (DATA / "h200/metrics.txt").read_text(encoding="utf-8").splitlines():
        if sample := re.fullmatch(r"([\w:]+)(?:\{(.*)\})? ([\d.e+]+)", line):
            name, labels, value = sample.groups()
            labels = re.sub(r'(?<!\w)(job|instance|host|model|release)="[^"]*",?', "", labels or "")
            counts = name.endswith(("_total", "_bucket", "_count", "_sum"))
            step = f"0+{value}x60" if counts else f"{value}x60"
            found.append({"series": f"{name}{{{', '.join(filter(None, (INSTANCE, labels)))}}}", "values": step})
    return found


def of_an_instance(series: list[dict[str, str]], names: list[str]) -> dict[str, Any]:
    test = {
        "interval": "15s",
        "input_series": series,
        "promql_expr_test": [has_numbers(name, "14m") for name in names],
    }
    return {"rule_files": RULE_FILES, "evaluation_interval": "15s", "tests": [test]}


def recorded_for(version: str) -> list[str]:
    """Return the recorded names that an instance of a release has to fill."""
    every = list(releases())
    since = {name: every.index(first) for name, first in NOT_TOLD_BEFORE.items()}
    return sorted(
        name for name in recorded() if not name.startswith(OF_NO_RELEASE) and since.get(name, 0) <= every.index(version)
    )


@pytest.mark.parametrize("version", releases())
def test_every_recorded_name_is_filled_by_every_release(host: Host, version: str) -> None:
    done = promtool(host, "test rules", of_an_instance(as_a_release_tells(version), recorded_for(version)))
    assert done.rc == 0, done.stderr


def test_every_recorded_name_is_filled_by_what_an_h200_told(host: Host) -> None:
    # Nobody waited when it was written down.
    names = [name for name in recorded_for("0.26.0") if name != "rackserve:saturated_tokens:rate5m"]
    done = promtool(host, "test rules", of_an_instance(as_an_h200_told(), names))
    assert done.rc == 0, done.stderr


def test_every_recorded_name_is_filled_by_an_edge_without_errors(host: Host) -> None:
    edge = 'job="edge", host="edge1"'
    told = {
        f'rackserve_edge_requests_total{{{edge}, client="lab", model="chat", status="200"}}': "0+15x60",
        f'rackserve_edge_first_byte_seconds_bucket{{{edge}, client="lab", model="chat", le="2.5"}}': "0+14x60",
        f'rackserve_edge_first_byte_seconds_count{{{edge}, client="lab", model="chat"}}': "0+15x60",
        f'rackserve_edge_upstream_requests_total{{{edge}, upstream="gpu1:a", status="200"}}': "0+15x60",
    }
    names = sorted(name for name in recorded() if name.startswith(OF_THE_EDGE))
    series = [{"series": name, "values": values} for name, values in told.items()]
    done = promtool(host, "test rules", of_an_instance(series, names))
    assert done.rc == 0, done.stderr


def test_a_name_that_a_release_does_not_tell_is_found_empty(host: Host) -> None:
    done = promtool(host, "test rules", of_an_instance(as_a_release_tells("0.6.4.post1"), list(NOT_TOLD_BEFORE)))
    assert (done.rc, done.stderr.count("exp:")) == (1, 2)
