"""An engine is reached through its socket proxy only, which is open while the engine serves and at no other time."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
import testinfra

from testing.generations import engine_unit, generation

if TYPE_CHECKING:
    from collections.abc import Callable

    from testinfra.host import Host

UNIT, OTHER = engine_unit("tiny"), engine_unit("tiny-without-prefix-cache")
SOCKET = "vllm-proxy@tiny.socket"
PORT = 8000
BACK_WITHIN_S = 150
GONE_WITHIN_S = 5
CONNECT = "python3 -c \"import socket; socket.create_connection(('{}', {}), 3).close()\""
STREAM = """
import http.client, json
connection = http.client.HTTPConnection("{}", {}, timeout=60)
usage = dict(include_usage=True)
body = json.dumps(dict(model="tiny", prompt="a", max_tokens=200, ignore_eos=True, stream=True, stream_options=usage))
connection.request("POST", "/v1/completions", body, {{"Content-Type": "application/json"}})
text = connection.getresponse().read().decode()
*_, last, done = [line.removeprefix("data: ") for line in text.splitlines() if line]
print(json.loads(last)["usage"]["completion_tokens"] if done == "[DONE]" else text)
"""


def address(host: Host) -> str:
    return host.check_output("hostname -I").split()[0]


def is_open(host: Host) -> bool:
    return host.run(CONNECT.format(address(host), PORT)).rc == 0


def show(host: Host, unit: str, key: str) -> str:
    return host.check_output(f"systemctl show --property={key} --value {unit}")


def wait_for(condition: Callable[[], bool], limit_s: float) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit_s, f"not within {limit_s} s"
        time.sleep(0.1)
    return time.monotonic() - started


def lab_host(host: Host, name: str) -> Host:
    return testinfra.get_host(f"ssh://{name}", ssh_config=host.backend.ssh_config)


def test_only_the_entries_listen_outside_the_loopback(host: Host) -> None:
    listening = host.check_output("ss --tcp --listening --numeric --no-header").splitlines()
    ports = {line.split()[3].rsplit(":", 1)[1] for line in listening}
    assert ports == {"22", "8000", "8001"}


def test_an_engine_has_no_network_but_its_own_loopback(host: Host) -> None:
    main = show(host, UNIT, "MainPID")
    found = json.loads(host.check_output(f"nsenter --target {main} --net ip -json address"))
    assert [interface["ifname"] for interface in found] == ["lo"]


@pytest.mark.parametrize(("user", "reached"), [("vllm", True), ("nobody", False), ("daemon", False)])
def test_no_other_user_reaches_the_engine(host: Host, user: str, reached: bool) -> None:  # noqa: FBT001
    path = f"/run/vllm-tiny.{generation(host, 'tiny')}/api.sock"
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('{path}')"
    assert (host.run(f'runuser --user={user} -- python3 -c "{connect}"').rc == 0) is reached


def test_an_engine_sees_nothing_of_the_other(host: Host) -> None:
    root = f"/proc/{show(host, UNIT, 'MainPID')}/root"
    for folder in ("/var/cache/vllm", "/var/lib/vllm"):
        assert host.check_output(f"ls {root}{folder}").split() == ["tiny"]
    assert "vllm-tiny-without-prefix-cache" not in host.check_output(f"ls {root}/run")


def test_an_engine_does_not_share_the_memory_of_its_host(host: Host) -> None:
    """A user who fills the host's /dev/shm would end an engine that shares it, by SIGBUS."""
    own = f"/proc/{show(host, UNIT, 'MainPID')}/root/dev/shm"
    host.check_output("touch /dev/shm/of-a-user")
    try:
        assert "of-a-user" not in host.check_output(f"ls {own}")
    finally:
        host.check_output("rm /dev/shm/of-a-user")
    blocks, size = map(int, host.check_output(f"stat --file-system --format='%b %S' {own}").split())
    assert blocks * size > 0.8 * 1024 * int(host.check_output("awk '$1 == \"MemTotal:\" {print $2}' /proc/meminfo"))
    assert host.check_output(f"stat --format=%a {own}") == "1777"


@pytest.mark.parametrize(("name", "reached"), [("edge1", True), ("gpu2", False)])
def test_the_proxy_accepts_the_clients_of_the_inventory(host: Host, name: str, reached: bool) -> None:  # noqa: FBT001
    assert (lab_host(host, name).run(CONNECT.format(address(host), PORT)).rc == 0) is reached


@pytest.mark.parametrize(("user", "reached"), [("root", True), ("www-data", True), ("nobody", False)])
def test_the_proxy_refuses_users_of_its_own_host(host: Host, user: str, reached: bool) -> None:  # noqa: FBT001
    connect = CONNECT.format(address(host), PORT)
    assert (host.run(f"runuser --user={user} -- {connect}").rc == 0) is reached
    host.check_output("nft delete table inet rackserve_proxy_tiny")
    assert host.run(f"runuser --user={user} -- {connect}").rc == 0, "it was the table that refused"
    host.check_output(f"systemctl restart {SOCKET}")


def test_closing_the_proxy_closes_the_port_and_leaves_the_engine_alone(host: Host) -> None:
    before = show(host, UNIT, "InvocationID")
    assert is_open(host)
    host.check_output(f"systemctl stop {SOCKET}")
    assert not is_open(host)
    host.check_output(f"systemctl start {SOCKET}")
    assert is_open(host)
    assert show(host, UNIT, "InvocationID") == before


def test_a_stop_answers_what_was_asked_and_a_dead_engine_has_no_open_proxy(host: Host) -> None:
    code = STREAM.format(address(host), PORT)
    host.check_output("printf %%s %s >/run/stream.py", code)
    answer = host.check_output(f"python3 /run/stream.py & sleep 0.3; systemctl stop {UNIT}; wait")
    assert answer == "200"
    assert not is_open(host)
    assert host.run(f"systemctl start {SOCKET}").rc != 0, "nobody opens it by hand before an engine"


def test_a_started_unit_has_generated_a_token(host: Host) -> None:
    host.check_output(f"systemctl start {UNIT}")
    assert is_open(host)


@pytest.mark.parametrize("victim", ["API server", "engine"])
def test_a_killed_process_closes_the_proxy_and_takes_the_rest_with_it(host: Host, victim: str) -> None:
    wait_for(lambda: is_open(host), BACK_WITHIN_S)
    others = show(host, OTHER, "InvocationID")
    before, group = show(host, UNIT, "InvocationID"), show(host, UNIT, "ControlGroup")
    processes = f"/sys/fs/cgroup{group}/cgroup.procs"
    find = f"grep -l EngineCor $(sed 's,.*,/proc/&/comm,' {processes}) | cut -d/ -f3"
    pid = show(host, UNIT, "MainPID") if victim == "API server" else host.check_output(find).split()[0]
    host.check_output(f"kill -KILL {pid}")
    wait_for(lambda: not host.run(f"cat {processes}").stdout.strip(), GONE_WITHIN_S)
    assert not is_open(host)
    wait_for(lambda: is_open(host), BACK_WITHIN_S)
    assert show(host, UNIT, "InvocationID") != before
    assert show(host, OTHER, "InvocationID") == others
