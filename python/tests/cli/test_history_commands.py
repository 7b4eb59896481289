"""history and unlock through `main(argv)`; Ansible and the inventory are faked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rackserve import history
from rackserve.cli import _history, _unlock, main
from rackserve.run import Fleet, FleetHost, HostStats, RunResult, TaskFailure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.needs("ssh-keygen")
GATES = ({"kind": "gate", "gate": "token", "ok": True}, {"kind": "gate", "gate": "speed", "ok": False, "instance": "a"})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    hosts = (FleetHost("gpu1", ("vllm_hosts",), None), FleetHost("gpu2", ("vllm_hosts",), None))
    for module in (_history, _unlock):
        monkeypatch.setattr(module, "load_fleet", lambda path: Fleet(path, hosts))
    return tmp_path


@pytest.fixture
def hosts_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    def prepare(found: dict[str, Any], *unreachable: str) -> None:
        failed = tuple(TaskFailure(host, "t", "ssh: timed out") for host in unreachable)
        result = RunResult(4 if unreachable else 0, "done", (HostStats("gpu1", ok=1),), (), failed, tmp_path)
        for module in (_history, _unlock):
            monkeypatch.setattr(module, "read_locks", lambda *_, **__: (result, found))

    return prepare


def line(number: int, *records: dict[str, Any], previous: str = "", outcome: str = "ok") -> str:
    holder = history.this_process(f"2026-{number}", "site.yml", "lab", history.fingerprint())
    made = history.PresentRun({**holder, "user": "alice", "host": "ctl-a"})
    made.locks["gpu1"] = history.HeldLock("/f", {"count": number, "digest": previous})
    for record in records:
        made.take_result("gpu1", "Task", {"changed": True, history.KEY: record})
    made.sign_lines(outcome)
    return made.lines["gpu1"]


def test_history_says_who_what_and_the_gates(site: Path, hosts_tell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    switch = {"kind": "switch", "instance": "a", "before": "0123456789", "after": "abcdef0123"}
    consent = {"kind": "consent", "what": "downgrade", "reason": "audit"}
    bundle = {"kind": "bundle", "name": "lab", "version": 7}
    hosts_tell({"gpu1": {"lines": [line(0, bundle, consent, switch, *GATES)]}})
    assert main(["history", "-i", str(site)]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["WHEN", "WHO", "PLAYBOOK", "OUTCOME", "WHAT"]
    assert "alice@ctl-a  site.yml  ok  " in " ".join(row.split(" ")).replace("   ", "  ")
    for fact in (
        "changed gpu1",
        "1 of 2 gates passed, failed: speed of gpu1:a",
        "bundle lab version 7",
        "allowed downgrade: audit",
        "switch gpu1:a 0123456789 -> abcdef0123",
    ):
        assert fact in row


def test_history_verifies(site: Path, hosts_tell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first = line(0, *GATES)
    lines = [first, line(1, *GATES, previous=history.digest_of(first))]
    hosts_tell({"gpu1": {"lines": lines}})
    assert main(["history", "-i", str(site), "--verify"]) == 0
    assert capsys.readouterr().out.count("intact, this controller's key") == 2
    hosts_tell({"gpu1": {"lines": lines[1:]}})
    assert main(["history", "-i", str(site), "--verify", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["runs"][0]["intact"] is False
    assert "does not follow the line before it" in err


def test_history_of_a_site_that_nothing_changed(
    site: Path, hosts_tell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts_tell({"gpu1": {"lines": []}})
    assert main(["history", "-i", str(site)]) == 0
    assert capsys.readouterr().out == "no run has changed anything\n"


def test_history_of_a_host_that_was_not_read(site: Path, hosts_tell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hosts_tell({"gpu1": {"lines": [line(0, *GATES)]}}, "gpu2")
    assert main(["history", "-i", str(site)]) == 1
    out, err = capsys.readouterr()
    assert "changed gpu1" in out
    assert "cannot reach gpu2" in err


def test_history_has_this_controllers_records_of_the_site_only(
    site: Path, hosts_tell: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for number, inventory in enumerate((site.resolve(), tmp_path / "another")):
        entry = {"run": f"r{number}", "since": "2026", "changed": {"gpu9": 1}, "sites": [str(inventory)]}
        history.write_record(tmp_path / "state" / "rackserve" / "runs" / f"r{number}", entry)
    hosts_tell({"gpu1": {"lines": []}})
    assert main(["history", "-i", str(site), "--json"]) == 0
    assert [run["run"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["r0"]


HELD = {
    "holder": {"run": "r1", "user": "alice", "host": "b", "pid": 7, "command": "site.yml", "inventory": "lab"},
    "age_s": 60.0,
    "seen_s": 5.0,
    "busy": False,
    "known": "unknown",
    "lines": [],
}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    seen: list[Any] = []

    def fake(_inventory: Path, *given: Any, on_event: Any) -> RunResult:
        assert on_event
        seen.append(given)
        return RunResult(0, "done", (HostStats("gpu1", ok=1),), (), (), tmp_path)

    monkeypatch.setattr(_unlock, "break_locks", fake)
    return seen


def test_unlock_breaks_what_it_read(
    site: Path, hosts_tell: Any, broken: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    hosts_tell({"gpu1": HELD, "gpu2": {"holder": None, "lines": []}})
    assert main(["unlock", "--all", "--reason", " it burnt ", "-i", str(site)]) == 0
    assert broken == [(["gpu1"], ["r1"], "it burnt")]
    said = "gpu1: unlocked; it was locked by alice on b (process 7, site.yml on the inventory lab, run r1)\n"
    assert capsys.readouterr().out == said


def test_unlock_of_no_lock_breaks_nothing(
    site: Path, hosts_tell: Any, broken: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    hosts_tell({"gpu1": {"holder": None, "lines": []}})
    assert main(["unlock", "gpu1", "--reason", "x", "-i", str(site)]) == 0
    assert (broken, capsys.readouterr().out) == ([], "no host is locked\n")


def test_unlock_refuses_a_run_that_is_alive(
    site: Path, hosts_tell: Any, broken: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    alive = history.this_process("r1", "site.yml", "lab", history.fingerprint())
    hosts_tell({"gpu1": {**HELD, "holder": alive, "known": "running"}})
    assert main(["unlock", "gpu1", "--reason", "x", "-i", str(site)]) == 2
    assert "it runs on this controller: wait for its end, or end it" in capsys.readouterr().err
    assert broken == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["gpu7", "--reason", "x"], "gpu7: not in the inventory"),
        (["gpu1", "--reason", " "], "--reason is empty"),
        (["--reason", "x"], "name hosts, or give --all"),
        (["gpu1", "--all", "--reason", "x"], "name hosts, or give --all"),
    ],
)
def test_unlock_refuses_bad_input(
    site: Path, hosts_tell: Any, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    hosts_tell({})
    assert main(["unlock", *argv, "-i", str(site)]) == 2
    assert said in capsys.readouterr().err
