"""Prometheus sees what is there and what is gone, and its alerts fire when they should and only then."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from testinfra.host import Host

RULE_TESTS = Path(__file__).with_name("rackserve.rules.test.yml").read_text()
FIRES_WITHIN_S = 150


def get(host: Host, path: str) -> Any:  # noqa: ANN401 - JSON
    code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{path}').read().decode())"
    return json.loads(host.check_output(f"python3 -c {shlex.quote(code)}"))


def run_rule_tests(host: Host, text: str) -> int:
    host.check_output(f"printf %s {shlex.quote(text)} > /tmp/rules.test.yml")
    return int(host.run("promtool test rules /tmp/rules.test.yml").rc)


def test_every_alert_fires_and_is_silent_as_its_test_says(host: Host) -> None:
    assert run_rule_tests(host, RULE_TESTS) == 0, host.run("promtool test rules /tmp/rules.test.yml").stderr


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        ("values: 1x4 0x20", "values: 1x24"),
        ("values: 0+10x8 80x32", "values: 0+10x40"),
        ("values: 0x40", "values: 3x40"),
        ("values: 1x8 0x8", "values: 1x16"),
        ('up{job="node", instance="x"}\', values: 1x40', 'up{job="vllm", instance="x"}\', values: 1x40'),
    ],
    ids=[
        "a target that answers",
        "an engine that works",
        "an idle engine that hangs",
        "a bundle that is whole",
        "an instance that is known",
    ],
)
def test_the_rule_test_itself_can_fail(host: Host, sound: str, broken: str) -> None:
    assert sound in RULE_TESTS
    assert run_rule_tests(host, RULE_TESTS.replace(sound, broken)) != 0


def test_targets_are_up_and_down_as_they_are(host: Host) -> None:
    deadline = time.monotonic() + 60
    found: dict[str, str] = {}
    while time.monotonic() < deadline and "unknown" in (found or {"": "unknown"}).values():
        active = get(host, "9090/api/v1/targets")["data"]["activeTargets"]
        found = {f"{t['labels']['job']} {t['labels'].get('host', '')}".strip(): t["health"] for t in active}
        time.sleep(1)
    up, down = "up", "down"
    assert found == {"prometheus": up, "alertmanager": up, "node edge1": up, "node gone": down, "vllm gone": down}


def test_an_alert_reaches_alertmanager(host: Host) -> None:
    deadline = time.monotonic() + FIRES_WITHIN_S
    names: set[str] = set()
    while time.monotonic() < deadline and "VllmInstanceDown" not in names:
        names = {alert["labels"]["alertname"] for alert in get(host, "9093/api/v2/alerts")}
        time.sleep(2)
    assert "VllmInstanceDown" in names
    assert "VllmHung" not in names


@pytest.mark.parametrize("port", [9090, 9093])
def test_nothing_of_it_is_open_to_others(host: Host, port: int) -> None:
    rows = host.check_output("ss --tcp --listening --numeric --no-header").splitlines()
    assert {row.split()[3] for row in rows if row.split()[3].endswith(f":{port}")} == {f"127.0.0.1:{port}"}


def test_the_exporter_waits_for_its_address(host: Host) -> None:
    shown = host.check_output(
        "systemctl show prometheus-node-exporter --property=Restart,RestartUSec,StartLimitIntervalUSec"
    )
    assert set(shown.splitlines()) == {"Restart=always", "RestartUSec=2s", "StartLimitIntervalUSec=0"}
