"""No request fails while a fleet is changed, and some do when engines are just restarted.

`ROLLOUT_REQUESTS` sets how many requests there are at least in each change, `ROLLOUT_CLIENTS` how many clients.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from testing.lab import ROOT
from testing.rollout_fixtures import RESULTS
from testing.rollout_traffic import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from testing.rollout_fleet import Fleet
    from testing.rollout_site import Site

FEWER: dict[str, Any] = {"instance": {"max_num_seqs": 6}}
# Each begins where the one before ends, so that all of them need one start of the fleet: before, after, and what the
# engines' fingerprints have in common afterwards.
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an argument": ({}, FEWER, "vllm-0.32.0"),
    "the model's revision": (FEWER, {**FEWER, "revision": "nudged"}, "vllm-0.32.0"),
    "an older release": ({**FEWER, "revision": "nudged"}, {"vllm": "0.31.0"}, "vllm-0.31.0"),
    "a newer release": ({"vllm": "0.31.0"}, {}, "vllm-0.32.0"),
}
# Of answers for changes that take a few seconds.
SHORT = 8


def test_a_plain_restart_fails_requests(site: Site, fleet: Fleet, under_traffic: Callable[..., Any]) -> None:
    site.bring()
    with under_traffic("control", requests=0) as seen:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda host: host.check_output("systemctl restart 'vllm@smollm2.*.service'"), fleet.values()))
        fleet.serve()
        seen.running.wait(50)
    assert seen.summary.failed > 0


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_engines_fails_no_request(
    site: Site, fleet: Fleet, under_traffic: Callable[..., Any], change: str
) -> None:
    before, after, version = CHANGES[change]
    site.bring(**before)
    old = fleet.live()
    site.change(**after)
    with under_traffic(change) as seen:
        done = site.apply()
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    new = fleet.live()
    assert {host for host in fleet if new[host] == old[host]} == set()
    assert len(set(new.values())) == 1, "the hosts are equal"
    assert fleet.out() == set()
    assert seen.watch.touched() == set(fleet), "the hosts were drained, one after the other"
    assert seen.summary.failed == 0, seen.summary.text()
    assert seen.summary.requests >= REQUESTS
    assert any(told.startswith(version) for told in seen.summary.versions)
    draw(change)


def draw(change: str) -> None:
    name = RESULTS / change.replace(" ", "-")
    argv = [sys.executable, "python/tools/rollout_picture.py", f"{name}.jsonl", f"{name}.svg", "--title", change]
    argv += ["--events", f"{name}.events.jsonl"]
    subprocess.run(argv, check=True, cwd=ROOT, env={"PYTHONPATH": "python"})


def test_a_second_run_changes_nothing(site: Site, fleet: Fleet) -> None:
    site.bring()
    started = fleet.invocations()
    done = site.apply()
    assert done.returncode == 0, done.stdout[-5000:]
    recap = [line for line in done.stdout.splitlines() if line.startswith(("gpu1 ", "gpu2 ", "edge1 "))]
    assert len(recap) == 3
    assert [line for line in recap if " changed=0 " not in line] == []
    assert fleet.invocations() == started


def test_a_new_bundle_with_a_newer_package_fails_no_request(
    site: Site, fleet: Fleet, under_traffic: Callable[..., Any]
) -> None:
    site.bring()
    site.bundle = "two"
    with under_traffic("bundle and packages", most_tokens=SHORT) as seen:
        done = site.apply()
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    for host in fleet.values():
        assert host.package("libnuma1").version.endswith("r1")
    assert seen.summary.failed == 0, seen.summary.text()
    assert seen.summary.requests >= REQUESTS


def test_a_new_client_of_the_edge_fails_no_request(site: Site, fleet: Fleet, under_traffic: Callable[..., Any]) -> None:
    site.bring()
    started = fleet.invocations()
    nginx = fleet.edge.check_output("systemctl show --property=MainPID --value nginx")
    site.clients("another")
    with under_traffic("edge configuration", most_tokens=SHORT) as seen:
        done = site.apply()
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert fleet.edge.check_output("systemctl show --property=MainPID --value nginx") == nginx, "it was reloaded"
    assert fleet.invocations() == started
    assert seen.summary.failed == 0, seen.summary.text()
    assert seen.summary.requests >= REQUESTS


def test_a_newer_package_of_the_edge_fails_no_request(
    site: Site, fleet: Fleet, under_traffic: Callable[..., Any]
) -> None:
    site.bring()
    started = fleet.invocations()
    site.bundle = "three"
    with under_traffic("edge package", most_tokens=SHORT) as seen:
        done = site.apply()
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert fleet.edge.package("nginx").version.endswith("r1")
    assert fleet.invocations() == started
    assert seen.summary.failed == 0, seen.summary.text()
    assert seen.summary.requests >= REQUESTS
