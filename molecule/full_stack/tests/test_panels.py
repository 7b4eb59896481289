"""On a fleet that has had requests every panel shows something, and every rule asks for what is there."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import promql_parser
import pytest

from rackserve.dashboards import live, panels
from testing.lab import ROOT

if TYPE_CHECKING:
    from openai import OpenAI
    from testinfra.host import Host

testinfra_hosts = ["ssh://edge1"]
WITHIN_S = 120
QUERIES = [
    query
    for board in panels.read(ROOT / "roles/grafana/files/dashboards").values()
    for query in panels.queries(board)
    if not query.needs
]
ASK = """
import json, urllib.error, urllib.request
found = []
for path in json.load(open("/tmp/questions.json")):
    try:
        found.append(json.load(urllib.request.urlopen("http://127.0.0.1:9090" + path)))
    except urllib.error.HTTPError as refused:
        found.append(json.load(refused))
print(json.dumps(found))
"""
# What rules select and a healthy fleet of CPU hosts with vLLM 0.32.0 does not have.
NOT_HERE = {
    "vllm:gpu_cache_usage_perc": "0.6.4",
    "vllm:gpu_prefix_cache_hit_rate": "0.6.4",
    "vllm:time_per_output_token_seconds_bucket": "0.10.2 and before",
    "vllm:time_per_output_token_seconds_count": "0.10.2 and before",
    "rackserve:saturated_tokens:rate5m": "only while requests wait",
    "rackserve_bundle_expires_seconds": "a bundle with a last day",
    "prometheus_remote_storage_shards": "prometheus_remote_write",
    "prometheus_remote_storage_highest_timestamp_in_seconds": "prometheus_remote_write",
    "prometheus_remote_storage_queue_highest_sent_timestamp_seconds": "prometheus_remote_write",
}


def prometheus(host: Host, paths: list[str]) -> list[dict[str, Any]]:
    """Return what Prometheus on the edge answers, all of it in one way there and back."""
    host.check_output(f"printf %s {shlex.quote(json.dumps(paths))} > /tmp/questions.json")
    answers: list[dict[str, Any]] = json.loads(host.check_output(f"python3 -c {shlex.quote(ASK)}"))
    return answers


def evaluated(host: Host, expressions: list[str]) -> list[dict[str, Any]]:
    return prometheus(host, [f"/api/v1/query?query={quote(each)}" for each in expressions])


def silent(host: Host, queries: list[panels.PanelQuery]) -> list[panels.PanelQuery]:
    return live.silent(zip(queries, evaluated(host, [query.expr for query in queries]), strict=True))


def answer(openai: OpenAI) -> None:
    """Have one streamed: the edge tells the time to the first byte of those alone."""
    list(openai.completions.create(model="smollm2", prompt="Once upon a time", max_tokens=8, stream=True))


@pytest.fixture(scope="module")
def asked(host: Host, openai: OpenAI) -> None:
    """Send a few requests, and have the bundle compared as it is once a week."""
    host.check_output("systemctl start rackserve-bundle-verify.service")
    for _ in range(6):
        answer(openai)


@pytest.mark.usefixtures("asked")
def test_every_panel_shows_something(host: Host, openai: OpenAI) -> None:
    deadline = time.monotonic() + WITHIN_S
    left = silent(host, QUERIES)
    while left and time.monotonic() < deadline:
        answer(openai)
        time.sleep(5)
        left = silent(host, left)
    assert [query.name for query in left] == []


@pytest.mark.usefixtures("asked")
def test_a_panel_with_a_wrong_name_shows_nothing(host: Host) -> None:
    right = next(query for query in QUERIES if query.expr.startswith("rackserve:running{"))
    wrong = dataclasses.replace(right, expr=right.expr.replace("rackserve:running", "rackserve:runing"))
    assert silent(host, [right, wrong]) == [wrong]


def selectors(expr: str) -> set[str]:
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            # As it stands, without an offset: a day ago there was no lab.
            found.add(node.prettify().split(" offset ")[0])
        return True

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found


@pytest.mark.usefixtures("asked")
def test_every_rule_selects_what_is_there_or_cannot_be(host: Host) -> None:
    (told,) = prometheus(host, ["/api/v1/rules"])
    rules = [rule for group in told["data"]["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    asked_for = sorted({selector for rule in rules for selector in selectors(rule["query"])})
    assert len(asked_for) > 50
    # The last one is what vLLM's own example of an alert asks for, and no release tells.
    asked_for.append("vllm:num_preemptions")
    answers = evaluated(host, asked_for)
    *empty, last = [each for each, answer in zip(asked_for, answers, strict=True) if not live.numbers(answer)]
    assert last == "vllm:num_preemptions"
    unknown = [
        selector
        for selector in empty
        if selector.split("{")[0] not in NOT_HERE
        # The lab has no GPU: neither the host's own metrics of one, nor nvitop-exporter's, nor dcgm-exporter's.
        and not selector.startswith(("rackserve_gpu", "rackserve:gpu_", "gpu_", "DCGM_FI_"))
        # None has failed yet.
        and not re.search(r'status=~?"5', selector)
    ]
    assert unknown == []
