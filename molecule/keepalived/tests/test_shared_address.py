"""The address goes where an edge answers, and stays where one does."""

from __future__ import annotations

import itertools
import shlex
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import testinfra

from testing.lab import SSH_CONFIG

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = str(SSH_CONFIG)
# Seconds without an answer that a client may see; 3 to 5 were measured.
MOST = 12
# Asks for the edge's health ten times a second, and says when it was answered.
WATCH = """
import http.client, ssl, sys, time
context, end = ssl._create_unverified_context(), time.time() + float(sys.argv[2])
while time.time() < end:
    link = http.client.HTTPSConnection(sys.argv[1], timeout=1, context=context)
    try:
        link.request("GET", "/healthz")
        if link.getresponse().status == 200:
            print(time.time(), flush=True)
    except (OSError, http.client.HTTPException):
        pass
    link.close()
    time.sleep(0.1)
"""


@pytest.fixture(scope="session")
def edges() -> dict[str, Host]:
    """Return both edges, the likelier one first."""
    return {name: testinfra.get_host(f"ssh://{name}", ssh_config=CONFIG) for name in ("gpu1", "gpu2")}


@pytest.fixture(scope="session")
def client() -> Host:
    """Return a host that is no edge."""
    return testinfra.get_host("ssh://edge1", ssh_config=CONFIG)


@pytest.fixture(scope="session")
def address(client: Host) -> str:
    """Return the shared address."""
    return str(client.check_output("hostname -I").split()[0].rpartition(".")[0] + ".40")


def holders(edges: dict[str, Host], address: str) -> list[str]:
    return [name for name, host in edges.items() if f" {address}/" in host.check_output("ip -4 -oneline address show")]


def held_by(edges: dict[str, Host], address: str, wanted: list[str], seconds: int = 40) -> list[str]:
    """Wait until these hold the address, and see that it is so a little later too."""
    end = time.monotonic() + seconds
    while holders(edges, address) != wanted and time.monotonic() < end:
        time.sleep(1)
    time.sleep(4)
    return holders(edges, address)


@contextmanager
def watched(client: Host, address: str, seconds: int) -> Iterator[list[float]]:
    """Have the client ask all the time; the list has the longest silence in seconds when the block is left."""
    code = f"python3 -c {shlex.quote(WATCH)} {address} {seconds} > /run/watch"
    client.check_output(f"systemd-run --quiet --unit=watch sh -c {shlex.quote(code)}")
    silence: list[float] = []
    try:
        time.sleep(2)
        yield silence
        while client.run("systemctl is-active watch").rc == 0:
            time.sleep(1)
        moments = [float(line) for line in client.check_output("cat /run/watch").split()]
        silence.append(max(after - before for before, after in itertools.pairwise(moments)))
    finally:
        client.run("systemctl stop watch; systemctl reset-failed watch")


@pytest.fixture
def at_home(edges: dict[str, Host], address: str) -> str:
    """Return the shared address, with both edges in order and the likelier one holding it."""
    for host in edges.values():
        host.run("systemctl kill --signal=CONT nginx keepalived; systemctl start nginx keepalived")
    if held_by(edges, address, ["gpu1"], 10) != ["gpu1"]:
        edges["gpu2"].check_output("systemctl restart keepalived")
    assert held_by(edges, address, ["gpu1"]) == ["gpu1"]
    return address


def test_one_host_holds_the_address_and_keeps_it_while_all_is_well(
    edges: dict[str, Host], client: Host, at_home: str
) -> None:
    with watched(client, at_home, 25) as silence:
        for _ in range(5):
            edges["gpu1"].check_output("systemctl reload nginx && systemctl reload keepalived")
            time.sleep(3)
    assert holders(edges, at_home) == ["gpu1"]
    assert silence[0] < 3


def test_it_moves_when_nginx_stops_and_stays_when_it_is_back(
    edges: dict[str, Host], client: Host, at_home: str, record_property: Callable[[str, object], None]
) -> None:
    with watched(client, at_home, 30) as silence:
        edges["gpu1"].check_output("systemctl stop nginx")
        assert held_by(edges, at_home, ["gpu2"], 20) == ["gpu2"]
    record_property("silence_s", silence[0])
    print(f"nginx stopped: {silence[0]:.1f} s of silence")
    assert 1 < silence[0] < MOST
    edges["gpu1"].check_output("systemctl start nginx")
    time.sleep(15)
    assert holders(edges, at_home) == ["gpu2"], "nopreempt"


def test_it_moves_when_a_host_no_longer_answers_anything(
    edges: dict[str, Host], client: Host, at_home: str, record_property: Callable[[str, object], None]
) -> None:
    """Its processes are stopped; its kernel still has the address until the other tells the network."""
    with watched(client, at_home, 30) as silence:
        edges["gpu1"].check_output("systemctl kill --signal=STOP keepalived nginx")
        time.sleep(20)
        assert "gpu2" in holders(edges, at_home)
    record_property("silence_s", silence[0])
    print(f"host frozen: {silence[0]:.1f} s of silence")
    assert 1 < silence[0] < MOST


def test_without_another_edge_it_is_given_up(edges: dict[str, Host], at_home: str) -> None:
    """The control: it is the check that moves the address, and not the other host that takes it."""
    edges["gpu2"].check_output("systemctl stop keepalived")
    assert holders(edges, at_home) == ["gpu1"]
    edges["gpu1"].check_output("systemctl stop nginx")
    assert held_by(edges, at_home, [], 20) == []


@pytest.mark.usefixtures("at_home")
def test_the_check_needs_no_rights(host: Host) -> None:
    check = "python3 /usr/local/lib/rackserve/check_edge.py 443 8080"
    assert host.run(f"setpriv --reuid=nobody --clear-groups {check}").rc == 0


def test_a_wrong_answer_of_the_check_is_told(host: Host) -> None:
    told = host.run("python3 /usr/local/lib/rackserve/check_edge.py 444 8080")
    assert (told.rc, "the edge does not answer" in told.stderr) == (1, True)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"keepalived_virtual_ip": "192.0.2.20"}, "set a free one of that network"),
        ({"keepalived_hosts": ["192.0.2.21"]}, "name two edges or more, this one among them"),
        ({"keepalived_auth_pass_src": "LONG"}, "must contain one password of 1 to 8"),
        ({"keepalived_virtal_ip": "x"}, "is it keepalived_virtual_ip?"),
    ],
    ids=["another network", "one host", "a long word", "a typing error"],
)
def test_what_cannot_work_is_refused(play: Play, variables: dict[str, object], reason: str, tmp_path: Path) -> None:
    word = tmp_path / "word"
    word.write_text("more than eight")
    chosen = {name: str(word) if value == "LONG" else value for name, value in variables.items()}
    chosen["keepalived_secure_logging"] = False
    done = play("molecule/keepalived/converge.yml", chosen, "--tags", "keepalived_preflight", "--limit", "gpu1")
    assert done.returncode != 0
    assert reason in " ".join(done.stdout.split())


def test_with_a_word_and_preempt_it_comes_back_and_without_an_address_nothing_runs(
    edges: dict[str, Host], at_home: str, play: Play, tmp_path: Path
) -> None:
    word = tmp_path / "word"
    word.write_text("s3cret")
    wanted = {"keepalived_preempt": True, "keepalived_auth_pass_src": str(word)}
    done = play("molecule/keepalived/converge.yml", wanted, "--tags", "keepalived")
    assert done.returncode == 0, done.stdout
    assert "s3cret" not in done.stdout
    assert "s3cret" not in edges["gpu1"].check_output("ps axww")
    secret = edges["gpu1"].file("/etc/keepalived/secret.conf")
    assert (secret.user, secret.mode) == ("root", 0o600)
    assert held_by(edges, at_home, ["gpu1"]) == ["gpu1"], "both know the word: one of them holds the address"
    edges["gpu1"].check_output("systemctl stop nginx")
    assert held_by(edges, at_home, ["gpu2"], 20) == ["gpu2"]
    edges["gpu1"].check_output("systemctl start nginx")
    assert held_by(edges, at_home, ["gpu1"], 30) == ["gpu1"]
    off = play("molecule/keepalived/converge.yml", {"keepalived_virtual_ip": ""}, "--tags", "keepalived")
    assert off.returncode == 0, off.stdout
    assert holders(edges, at_home) == []
    assert not edges["gpu1"].service("keepalived").is_running
    again = play("molecule/keepalived/converge.yml", {}, "--tags", "keepalived")
    assert again.returncode == 0, again.stdout
