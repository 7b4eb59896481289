"""`rackserve doctor` through `main(argv)`; the runner and the inventory are faked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.cli import _doctor, main
from rackserve.run import EventKind, Fleet, FleetHost, HostStats, RunEvent, RunResult, TaskFailure, _ansible

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = (FleetHost("gpu1", ("vllm_hosts",), "10.0.0.11"),)
FINE: dict[str, Any] = {"alerts": [], "units": [], "free": {"/": 0.5}, "answers": {}, "services": {}, "drained": []}
FULL: dict[str, Any] = {**FINE, "free": {"/": 0.01}}
OFF = TaskFailure("gpu1", "t", "ssh: connect to host 10.0.0.11 port 22: No route to host")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RACKSERVE_PROJECT", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "site.yml").touch()
    monkeypatch.setattr(_doctor, "load_fleet", lambda path: Fleet(path, HOSTS))
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets what the next run brings."""

    def prepare(evidence: dict[str, Any] | None, *, hosts: tuple[HostStats, ...] = (HostStats("gpu1", ok=1),)) -> None:
        def run_playbook(playbook: Path, inventory: Path, **options: Any) -> RunResult:
            assert (playbook.name, inventory.is_dir()) == ("verify_fleet.yml", True)
            assert options["tags"] == ["diagnose"]
            if evidence is not None:
                options["on_event"](RunEvent(EventKind.OK, task="t", host="gpu1", data={"evidence": evidence}))
            unreachable = () if evidence is not None else (OFF,)
            return RunResult(4 if unreachable else 0, "done", hosts, (), unreachable, options["record_dir"])

        monkeypatch.setattr(_ansible, "run_playbook", run_playbook)

    return prepare


@pytest.mark.parametrize(("evidence", "code"), [(FINE, 0), (FULL, 1), (None, 2)], ids=["healthy", "ill", "unseen"])
def test_the_exit_code_says_what_was_found(site: Path, run: Any, evidence: dict[str, Any] | None, code: int) -> None:
    run(evidence)
    assert main(["doctor", "-i", str(site)]) == code


def test_no_finding_is_reported(site: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(FINE)
    main(["doctor", "-i", str(site)])
    assert capsys.readouterr().out == "nothing found on 1 host\n"


def test_a_finding_has_its_evidence_and_what_to_do(site: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(FULL)
    main(["doctor", "-i", str(site)])
    first, seen, do = capsys.readouterr().out.splitlines()
    assert first == "1. gpu1: a disk is full (92 of 100)"
    assert seen == "   seen: / has 1.0% left"
    assert do.startswith("   do:   ")


def test_json_has_stable_keys(site: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(None)
    assert main(["doctor", "-i", str(site), "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    (finding,) = said["findings"]
    assert list(finding) == ["cause", "host", "instance", "evidence", "fix", "likelihood", "rule"]
    assert (finding["rule"], "No route to host" in finding["evidence"]) == ("no-host", True)


def test_no_host_is_bad_input(site: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(FINE, hosts=())
    assert main(["doctor", "-i", str(site)]) == 2
    assert "no host of" in capsys.readouterr().err
