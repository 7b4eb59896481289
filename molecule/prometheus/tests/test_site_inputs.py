"""Scrape jobs and rules of a site come with the inventory, are refused as a whole, and go with it."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

CONVERGE = "molecule/prometheus/converge.yml"
WITHIN_S = 90
TOKEN_FILE = Path(__file__).parents[1] / "files/scrape.token"
TOKEN = TOKEN_FILE.read_text(encoding="utf-8").strip()
JOB: dict[str, Any] = {"job_name": "site", "static_configs": [{"targets": ["127.0.0.1:9093"]}]}
BROKEN = "groups: [{name: g, rules: [{alert: A, expr: up ==, labels: {severity: warning}}]}]"


def get(host: Host, path: str) -> Any:  # noqa: ANN401 - JSON
    code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090{path}').read().decode())"
    return json.loads(host.check_output(f"python3 -c {shlex.quote(code)}"))["data"]


def query(host: Host, expression: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(host, f"/api/v1/query?query={quote(expression)}")["result"]
    return found


def wait_for(host: Host, expression: str) -> list[dict[str, Any]]:
    """Return what an expression selects, as soon as it selects something."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        if found := query(host, expression):
            return found
        time.sleep(2)
    raise AssertionError(f"{expression} selects nothing")


def scraped(host: Host) -> set[str]:
    """Return the targets of the site's jobs."""
    active = get(host, "/api/v1/targets")["activeTargets"]
    return {t["labels"]["instance"] for t in active if t["labels"]["job"].startswith("site")}


def loads(host: Host) -> list[str]:
    """Return when Prometheus started, and when it last read its configuration."""
    names = ("process_start_time_seconds", "prometheus_config_last_reload_success_timestamp_seconds")
    metrics = host.check_output(
        "python3 -c %s", "import urllib.request as u\nprint(u.urlopen('http://127.0.0.1:9090/metrics').read().decode())"
    )
    return [line for line in metrics.splitlines() if line.startswith(names)]


def state(host: Host) -> str:
    """Return what the files of Prometheus are: content, owner, mode, and time of change."""
    return host.check_output(
        "find /etc/prometheus /etc/default/prometheus -type f -printf '%p %u %g %m %T@\\n' -exec sha256sum {} + | sort"
    )


@pytest.fixture(scope="module", autouse=True)
def restored(play: Play) -> Iterator[None]:
    """Bring the inventory of the scenario back after the tests that change it."""
    yield
    done = play(CONVERGE, None, "--tags", "prometheus")
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_job_of_the_site_is_scraped_with_its_labels(host: Host) -> None:
    (found,) = wait_for(host, 'up{job="site"} == 1')
    assert found["metric"] == {
        "__name__": "up",
        "job": "site",
        "instance": "127.0.0.1:9093",
        "host": "edge1",
        "rack": "r1",
    }


def test_a_job_of_the_site_sends_the_token_of_a_file(host: Host) -> None:
    code = shlex.quote((Path(__file__).parent / "token_server.py").read_text(encoding="utf-8"))
    host.check_output(f"systemd-run --quiet --unit=token-server python3 -c {code}")
    try:
        wait_for(host, "site_value == 1")
    finally:
        host.run("systemctl stop token-server")
    assert host.run(f"grep -r {TOKEN} /etc/prometheus/prometheus.yml /etc/prometheus/targets").rc == 1
    token = host.file("/etc/prometheus/scrape-secrets/site-with-token.token")
    assert (token.user, token.group, token.mode) == ("root", "prometheus", 0o640)


def test_a_rule_of_the_site_fires(host: Host) -> None:
    (found,) = wait_for(host, 'ALERTS{alertname="RackAnswers", alertstate="firing"}')
    assert found["metric"]["rack"] == "r1"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"prometheus_rule_files": ["broken.yml"]}, "broken.yml: promtool refuses it, nothing was changed: "),
        (
            {"prometheus_scrape_jobs": [JOB | {"relabel_configs": [{"action": "mend"}]}]},
            "promtool refuses prometheus.yml, nothing was changed: FAILED: parsing YAML file",
        ),
        ({"prometheus_scrape_jobs": [JOB | {"job_name": "vllm"}]}, "job vllm: rackserve has a job of this name"),
    ],
    ids=["rule", "relabelling", "job"],
)
def test_a_refused_input_changes_nothing(
    host: Host, play: Play, tmp_path: Path, variables: dict[str, Any], reason: str
) -> None:
    (tmp_path / "broken.yml").write_text(BROKEN, encoding="utf-8")
    files = [str(tmp_path / name) for name in variables.get("prometheus_rule_files", [])]
    before = state(host), loads(host)
    done = play(CONVERGE, {**variables, "prometheus_rule_files": files}, "--tags", "prometheus")
    assert done.returncode != 0
    assert reason in " ".join(done.stdout.split()), done.stdout[-2000:]
    assert (state(host), loads(host)) == before


def test_site_yml_refuses_a_wrong_input_before_any_role_changes_a_host(play: Play) -> None:
    wrong = {"prometheus_rule_files": ["rules/gone.yml"]}
    done = play("playbooks/check_preflight.yml", wrong, "--limit", "edge1")
    assert done.returncode != 0
    assert "molecule/inventory/rules/gone.yml is not a file on the controller" in " ".join(done.stdout.split())


def test_a_new_target_needs_no_reload(host: Host, play: Play) -> None:
    before = loads(host)
    config = host.check_output("sha256sum /etc/prometheus/prometheus.yml")
    jobs = [
        JOB | {"scrape_interval": "5s", "static_configs": [{"targets": ["127.0.0.1:9093", "127.0.0.1:9090"]}]},
        JOB | {"job_name": "site-with-token", "scrape_interval": "5s", "token_src": str(TOKEN_FILE)},
    ]
    done = play(CONVERGE, {"prometheus_scrape_jobs": jobs}, "--tags", "prometheus", "--diff")
    assert done.returncode == 0, done.stdout[-2000:]
    assert TOKEN not in done.stdout
    assert scraped(host) == {"127.0.0.1:9093", "127.0.0.1:9090"}
    assert host.check_output("sha256sum /etc/prometheus/prometheus.yml") == config
    assert loads(host) == before


def test_what_is_removed_from_the_inventory_is_removed_from_the_host(host: Host, play: Play) -> None:
    before = loads(host)
    removed: dict[str, object] = {"prometheus_scrape_jobs": [], "prometheus_rule_files": []}
    done = play(CONVERGE, removed, "--tags", "prometheus")
    assert done.returncode == 0, done.stdout[-2000:]
    assert scraped(host) == set()
    assert "site" not in {group["name"] for group in get(host, "/api/v1/rules")["groups"]}
    left = host.check_output("find /etc/prometheus -type f -path '*site*'")
    assert left == ""
    assert (loads(host)[0], loads(host) == before) == (before[0], False), "a reload, and no restart"
