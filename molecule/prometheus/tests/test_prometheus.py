"""Prometheus sees what is there and what is gone, and its alerts fire when they should and only then."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from testing.alerts.promtool import CASES, GPUS, gpu_test, rule_test, turned

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from testinfra.backend.base import CommandResult
    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

FIRES_WITHIN_S = 150


def get(host: Host, path: str) -> Any:  # noqa: ANN401 - JSON
    code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{path}').read().decode())"
    return json.loads(host.check_output(f"python3 -c {shlex.quote(code)}"))


def run_rule_tests(host: Host, cases: list[dict[str, Any]]) -> CommandResult:
    text = shlex.quote(rule_test("/etc/prometheus/rackserve", cases))
    host.check_output(f"printf %s {text} > /tmp/rules.test.yml")
    return host.run("promtool test rules /tmp/rules.test.yml")


@pytest.mark.parametrize("interval", sorted({case.get("interval", "15s") for case in CASES}))
def test_every_alert_fires_and_is_silent_as_its_case_says(host: Host, interval: str) -> None:
    done = run_rule_tests(host, [case for case in CASES if case.get("interval", "15s") == interval])
    assert done.rc == 0, done.stderr


@pytest.mark.parametrize("name", ["VllmHung", "DiskFull", "GpuXid", "FirstTokenBudgetBurnFast"])
def test_a_case_whose_series_are_changed_over_fails_twice(host: Host, name: str) -> None:
    case = next(case for case in CASES if case["alert"] == name)
    done = run_rule_tests(host, [turned(case)])
    assert (done.rc, done.stderr.count("exp: ")) == (1, 2)


@pytest.mark.parametrize("wrong", [False, True], ids=["as told", "each value one off"])
def test_one_series_of_a_gpu_is_made_of_either_exporters(host: Host, *, wrong: bool) -> None:
    text = shlex.quote(gpu_test("/etc/prometheus/rackserve", GPUS, wrong=wrong))
    host.check_output(f"printf %s {text} > /tmp/gpus.test.yml")
    done = host.run("promtool test rules /tmp/gpus.test.yml")
    asked = sum(bool(values) for case in GPUS for values in case["expected"].values())
    assert (done.rc, done.stderr.count("exp: ")) == ((1, asked) if wrong else (0, 0))


def test_targets_are_up_and_down_as_they_are(host: Host) -> None:
    deadline = time.monotonic() + 60
    found: dict[str, str] = {}
    while time.monotonic() < deadline and "unknown" in (found or {"": "unknown"}).values():
        active = get(host, "9090/api/v1/targets")["data"]["activeTargets"]
        found = {f"{t['labels']['job']} {t['labels'].get('host', '')}".strip(): t["health"] for t in active}
        time.sleep(1)
    up, down = "up", "down"
    assert found == {
        "prometheus": up,
        "alertmanager": up,
        "node edge1": up,
        "node gone": down,
        "vllm gone": down,
        "site edge1": up,
        "site-with-token edge1": down,
    }


def test_it_never_scraped_what_debians_configuration_names(host: Host) -> None:
    jobs = {
        found["metric"]["instance"]
        for found in get(host, "9090/api/v1/query?query=last_over_time(up[1d])")["data"]["result"]
    }
    assert jobs
    assert not {name for name in jobs if name.startswith("localhost:")}


def test_an_alert_reaches_alertmanager(host: Host) -> None:
    deadline = time.monotonic() + FIRES_WITHIN_S
    names: set[str] = set()
    while time.monotonic() < deadline and "HostDown" not in names:
        names = {alert["labels"]["alertname"] for alert in get(host, "9093/api/v2/alerts")}
        time.sleep(2)
    assert "HostDown" in names
    assert not {"VllmHung", "VllmInstanceDown"} & names, "hosts that are off are one page each"


def waits(host: Host, alert: str) -> bool:
    """Tell whether an alert is pending or fires."""
    query = quote(f'ALERTS{{alertname="{alert}"}}')
    return bool(get(host, f"9090/api/v1/query?query={query}")["data"]["result"])


@pytest.fixture
def receiver(host: Host) -> Iterator[Callable[[], None]]:
    """Return what starts a receiver of samples; it is stopped in the end."""
    code = shlex.quote((Path(__file__).parent / "remote_receiver.py").read_text(encoding="utf-8"))
    yield lambda: host.check_output(f"rm -f /run/heads; systemd-run --quiet --unit=receiver python3 -c {code}")
    host.run("systemctl stop receiver")


def test_samples_are_sent_on_with_the_token_of_a_file(host: Host, receiver: Callable[[], None]) -> None:
    def wait_until(*, waiting: bool) -> None:
        deadline = time.monotonic() + FIRES_WITHIN_S
        while time.monotonic() < deadline and waits(host, "RemoteWriteFailing") is not waiting:
            time.sleep(2)
        assert waits(host, "RemoteWriteFailing") is waiting

    wait_until(waiting=True)
    receiver()
    wait_until(waiting=False)
    assert set(host.check_output("cat /run/heads").splitlines()) == {
        "Content-Encoding: snappy",
        "X-Prometheus-Remote-Write-Version: 0.1.0",
        "Authorization: Bearer canary-of-remote-write",
    }
    assert host.run("grep -r canary-of-remote-write /etc/prometheus/prometheus.yml").rc == 1
    assert host.file("/etc/prometheus/remote-write/far.token").mode == 0o640
    assert host.file("/etc/prometheus/remote-write").mode == 0o750


@pytest.mark.parametrize(
    "folder", ["remote-write", "alertmanager-secrets", "rackserve", "site-rules", "targets", "scrape-secrets"]
)
def test_files_that_are_no_longer_in_the_inventory_are_removed(host: Host, folder: str) -> None:
    assert host.file(f"/etc/prometheus/{folder}").is_directory
    assert not host.file(f"/etc/prometheus/{folder}/gone.token").exists, "the preparation placed it"


@pytest.mark.parametrize("port", [9090, 9093])
def test_nothing_of_it_is_open_to_others(host: Host, port: int) -> None:
    rows = host.check_output("ss --tcp --listening --numeric --no-header").splitlines()
    assert {row.split()[3] for row in rows if row.split()[3].endswith(f":{port}")} == {f"127.0.0.1:{port}"}


def test_the_exporter_waits_for_its_address(host: Host) -> None:
    shown = host.check_output(
        "systemctl show prometheus-node-exporter --property=Restart,RestartUSec,StartLimitIntervalUSec"
    )
    assert set(shown.splitlines()) == {"Restart=always", "RestartUSec=2s", "StartLimitIntervalUSec=0"}


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (
            {"prometheus_ttft_limit": 3},
            "prometheus_ttft_limit is 3, which is not a bound of vLLM's histogram; set one of",
        ),
        ({"prometheus_itl_limit": 0.25}, "prometheus_itl_limit is 0.25, which is not a bound"),
        ({"prometheus_slo": 95}, "prometheus_slo is 95"),
        ({"prometheus_disk_free_critical": 0.5}, "prometheus_disk_free_critical 0.5"),
        ({"prometheus_retention_size": "much"}, "prometheus_retention_size is much"),
        (
            {"alertmanager_receivers": [{"name": "on-call", "severities": ["critical"]}]},
            "receiver 'on-call': neither mail nor webhook is set; set one",
        ),
        (
            {"prometheus_remote_write": [{"name": "far", "url": "http://site:secret@far/w"}]},
            "prometheus_remote_write: receiver 'far': url: not an http:// or https:// URL",
        ),
    ],
    ids=["ttft", "itl", "slo", "disk", "retention", "receiver", "remote"],
)
@pytest.mark.usefixtures("host")
def test_a_wrong_limit_or_receiver_is_refused(play: Play, variables: dict[str, object], reason: str) -> None:
    done = play("molecule/prometheus/converge.yml", variables, "--tags", "prometheus_preflight,alertmanager_preflight")
    assert done.returncode != 0
    assert reason in " ".join(done.stdout.split()), done.stdout[-2000:]
