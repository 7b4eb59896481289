"""retire through `main(argv)`; the runner and the inventory are faked."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.cli import _retire, main
from rackserve.run import EventKind, Fleet, FleetHost, HostStats, RunEvent, RunResult, TaskFailure, _ansible, _site

if TYPE_CHECKING:
    from pathlib import Path

RECORD = {"kind": "retire", "host": "gpu2", "text": ["gpu2 retired; forgotten by edge1", "now remove gpu2"]}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a site whose inventory has gpu1, gpu2 and edge1."""
    project, inventory = tmp_path / "project", tmp_path / "site"
    (project / "playbooks").mkdir(parents=True)
    (project / "playbooks" / "retire_hosts.yml").touch()
    inventory.mkdir()
    monkeypatch.setenv("RACKSERVE_PROJECT", str(project))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    gpus = [FleetHost(name, ("vllm_hosts",), None) for name in ("gpu1", "gpu2")]
    hosts = (*gpus, FleetHost("edge1", ("edge_hosts",), None))
    for module in (_site, _retire):
        monkeypatch.setattr(module, "load_fleet", lambda path: Fleet(path, hosts))
    return inventory


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the options of each run; a consent of `fail` makes it fail."""
    found: list[dict[str, Any]] = []

    def run(playbook: Path, _inventory: Path, **options: Any) -> RunResult:
        found.append({**options, "playbook": playbook.name})
        failed = options["variables"].get("stack_rollout_consent") == "fail"
        if not failed:
            options["on_event"](RunEvent(EventKind.OK, host="gpu2", data={"rackserve_record": RECORD}))
        failures = (TaskFailure("gpu1", "t", "nothing was changed: x"),) if failed else ()
        hosts = (HostStats("gpu1", ok=1, failed=len(failures)),)
        return RunResult(2 if failed else 0, "done", hosts, failures, (), options["record_dir"])

    monkeypatch.setattr(_ansible, "run_playbook", run)
    return found


def test_what_is_left_to_do_is_told(site: Path, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retire", "gpu2", "gpu2", "--yes", "-i", str(site)]) == 0
    assert (seen[0]["playbook"], seen[0]["limit"]) == ("retire_hosts.yml", None)
    assert seen[0]["variables"] == {"stack_retire_hosts": ["gpu2"], "stack_retire_wipe": False}
    assert capsys.readouterr().out == "gpu2 retired; forgotten by edge1\nnow remove gpu2\n"


def test_consent_and_wipe_are_passed_on(site: Path, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retire", "gpu2", "--yes", "--wipe", "--consent", "sold", "--json", "-i", str(site)]) == 0
    assert seen[0]["variables"] == {
        "stack_retire_hosts": ["gpu2"],
        "stack_retire_wipe": True,
        "stack_rollout_consent": "sold",
    }
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["retired"]) == (True, [RECORD])


def test_a_refusal_is_exit_1(site: Path, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retire", "gpu2", "--yes", "--consent", "fail", "-i", str(site)]) == 1
    out, err = capsys.readouterr()
    assert len(seen) == 1
    assert out == ""
    assert "gpu1: t: nothing was changed: x" in err


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (["gpu9"], "'gpu9' is no vLLM host of the inventory"),
        (["edge1"], "'edge1' is no vLLM host of the inventory"),
        (["gpu1", "gpu2"], "gpu1, gpu2 is every vLLM host"),
    ],
)
def test_hosts_that_cannot_retire_start_no_run(
    site: Path, seen: Any, capsys: pytest.CaptureFixture[str], hosts: list[str], said: str
) -> None:
    assert main(["retire", *hosts, "--yes", "-i", str(site)]) == 2
    assert f"nothing was changed: {said}" in capsys.readouterr().err
    assert not seen


@pytest.mark.parametrize("answer", ["n\n", "y\n"])
def test_the_question_says_what_is_removed(
    site: Path, seen: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert main(["retire", "gpu2", "--wipe", "-i", str(site)]) == 0
    asked = "Retire gpu2: drain, remove the instances and wipe their keys, weights, caches, bundle and runtimes? [y/N]"
    assert asked in capsys.readouterr().err
    assert len(seen) == (answer == "y\n")


def test_without_a_terminal_a_yes_is_required(
    site: Path, seen: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["retire", "gpu2", "-i", str(site)]) == 2
    assert "give --yes" in capsys.readouterr().err
    assert not seen
