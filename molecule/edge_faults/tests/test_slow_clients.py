"""Clients that stop half-way do not keep others out, and are given up in time."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testing.edge import ROOMY, configured, engines

if TYPE_CHECKING:
    from testinfra.host import Host

CODE = Path(__file__).with_name("slow_clients.py").read_text(encoding="utf-8")
CONNECTIONS = 4096
FEWER = f"s/worker_connections {CONNECTIONS}/worker_connections {{}}/"
# How much later the clients, who look at one connection after the other, may notice.
CLIENTS_OWN_S = 4
# A reader's time begins when its buffers and the edge's are full, which takes a stand-in of 512 streams some seconds.
FILLING_S = 10
# Else the engine's time would be over before the reader's.
PATIENT = "s/proxy_read_timeout 3s/proxy_read_timeout 300s/"


def slow(host: Host, phase: str, count: int, limit: int) -> dict[str, Any]:
    """Have clients stop in a phase of their request; return what they, and one who is well, saw."""
    command = f"printf %s {ROOMY} | python3 -c {shlex.quote(CODE)} {phase} {count} {min(count, 8192)} {limit}"
    found: dict[str, Any] = json.loads(host.check_output(command))
    print(phase, count, found)
    return found


def test_a_worker_may_open_as_many_files_as_connections(host: Host) -> None:
    assert f"worker_connections {CONNECTIONS};" in host.file("/etc/nginx/nginx.conf").content_string
    rows = host.check_output("pgrep --exact nginx | xargs -I@ grep 'Max open files' /proc/@/limits").splitlines()
    *workers, least = sorted((int(row.split()[3]) for row in rows), reverse=True)
    assert min(workers) > CONNECTIONS, f"the master's own limit, {least}, is not the workers'"


def test_half_open_connections_twice_as_many_as_a_worker_has_keep_nobody_out(host: Host) -> None:
    found = slow(host, "hello", 2 * CONNECTIONS, 11)
    assert (found["refused"], found["health_failed"], found["still_open"]) == (0, [], 0)
    assert found["health_slowest"] <= 1
    assert found["longest_life"] <= 10 + CLIENTS_OWN_S


@pytest.mark.parametrize(("phase", "seconds"), [("header", 10), ("body", 30), ("read", 30 + FILLING_S)])
def test_a_slow_client_is_given_up_in_time_and_keeps_nobody_out(host: Host, phase: str, seconds: int) -> None:
    """With few connections a worker, as these clients cost more to run than to bear; a reader takes two of them."""
    connections = 256
    change = f"{FEWER.format(connections * (2 if phase == 'read' else 1))}; {PATIENT}"
    with configured(host, change), engines(host):
        found = slow(host, phase, 2 * connections, seconds + 10)
    assert (found["refused"], found["health_failed"], found["still_open"]) == (0, [], 0)
    assert found["health_slowest"] <= 1
    assert found["longest_life"] <= seconds + CLIENTS_OWN_S


def test_more_than_all_workers_have_do_keep_others_out(host: Host) -> None:
    """The control: health that fails or is late would have been seen."""
    with configured(host, FEWER.format(64)):
        found = slow(host, "hello", 2 * 4 * 64, 11)
    assert found["health_failed"] or found["health_slowest"] > 1
