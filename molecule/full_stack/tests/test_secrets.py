"""The edge's private key is a canary: after a run that tells all it can, it is in none of the places it could leak to.

Every search is shown to find what lies in its place: a text that each control puts there.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testing.lab import INVENTORY, STATE, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

testinfra_hosts = ["ssh://edge1"]
KEY = "/etc/nginx/tls/server.key"
# A line of the key, and the text of the controls, in files for root: no command line names what is searched for.
CANARY, CONTROL = "/run/canary-of-the-test", "/run/control-of-the-test"
RECORDS = STATE / "runs"
GREP = "-print0 | xargs -0 grep --files-with-matches --fixed-strings --file={}"
# How a place is searched for the lines of a file, how a control gets there, and how it goes away.
PLACES = {
    "files that others may read": (
        f"find /etc /var /opt /usr/local /tmp -xdev -type f -perm -o=r -size -20M {GREP}",
        "install --mode=0644 {} /etc/control-of-the-test",
        "rm /etc/control-of-the-test",
    ),
    "logs": (
        f"find /var/log -type f -not -path '*/journal/*' {GREP}",
        "install --mode=0600 {} /var/log/control-of-the-test",
        "rm /var/log/control-of-the-test",
    ),
    "the journal": (
        "journalctl --no-pager | grep --fixed-strings --file={}",
        "logger --file {}; journalctl --sync",
        "",
    ),
    "command lines and environments": (
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | grep --text --only-matching --fixed-strings --file={}",
        "MARK=$(cat {}) setsid --fork sleep 20 < /dev/null > /dev/null 2>&1",
        "true",
    ),
}


def found(host: Host, place: str, file: str) -> str:
    return str(host.run(PLACES[place][0].format(file)).stdout).strip()


@pytest.fixture(scope="module")
def said(host: Host) -> str:
    """Return what a run prints and logs that brings the key again, at the highest verbosity and with differences."""
    host.check_output(f"umask 077; sed --quiet 3p {KEY} > {CANARY}; truncate --size=0 {KEY}")
    log = f"/tmp/{uuid.uuid4().hex}.log"  # noqa: S108 - removed below
    argv = ("ansible-playbook", "site.yml", "-i", str(INVENTORY), "--limit", "edge1", "--diff", "-vvvv")
    shown = command("env", f"ANSIBLE_LOG_PATH={log}", *argv)
    logged = Path(log).read_text(encoding="utf-8")
    Path(log).unlink()
    assert shown.returncode == 0, shown.stdout[-3000:]
    return shown.stdout + shown.stderr + logged


@pytest.fixture(scope="module")
def canary(host: Host, said: str) -> Iterator[str]:
    """Return a line of the key, which the run has brought."""
    assert "Copy the private key" in said
    line = host.check_output(f"cat {CANARY}")
    assert line in host.check_output(f"cat {KEY}")
    assert len(line) > 20
    yield line
    host.check_output(f"rm --force {CANARY} {CONTROL}")


def test_the_run_tells_nothing_of_the_key(said: str, canary: str) -> None:
    assert canary not in said


def test_the_run_tells_nothing_of_a_clients_key(said: str, hostvars: dict[str, str]) -> None:
    key = Path(hostvars["key"]).read_text(encoding="utf-8").strip()
    assert key not in said
    assert len(key) > 20


def test_an_unprotected_copy_would_tell(hostvars: dict[str, str], canary: str) -> None:
    source = Path(hostvars["ca"]).parent / "edge1.key"
    arguments = f"src={source} dest=/run/never-written"
    shown = command(
        *("ansible", "edge1", "-i", str(INVENTORY), "-m", "ansible.builtin.copy", "-a", arguments, "--check", "--diff")
    )
    assert canary in shown.stdout


@pytest.mark.parametrize("place", PLACES)
def test_the_key_is_nowhere(host: Host, canary: str, place: str) -> None:  # noqa: ARG001 - it fills the file
    assert found(host, place, CANARY) == ""


@pytest.mark.parametrize("place", PLACES)
def test_the_search_finds_what_is_there(host: Host, place: str) -> None:
    _, put, remove = PLACES[place]
    host.check_output(f"umask 077; cat /proc/sys/kernel/random/uuid > {CONTROL}; {put.format(CONTROL)}")
    try:
        assert found(host, place, CONTROL)
    finally:
        host.check_output(remove)


def test_no_record_of_a_run_holds_it(canary: str) -> None:
    command("rackserve", "verify", "-i", str(INVENTORY), "--limit", "edge1")  # leaves a record, whatever it finds
    kept = [path for path in RECORDS.rglob("*") if path.is_file()]
    assert any('"hosts"' in path.read_text(encoding="utf-8") for path in kept), "there are records to search"
    assert not [path for path in kept if canary in path.read_text(encoding="utf-8", errors="replace")]
