"""rollout and rollback through `main(argv)`; the runner and the inventory are faked."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.cli import _rollback, main
from rackserve.run import (
    EventKind,
    Fleet,
    FleetHost,
    HostStats,
    RunEvent,
    RunResult,
    TaskFailure,
    _ansible,
    _site,
    last_rollout,
    pause_file,
    run_lock,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROW = {
    "host": "gpu1",
    "batch": 1,
    "instance": "a",
    "live": "old",
    "wanted": "new",
    "what": ["max_num_seqs 8 -> 16"],
    "restarted": ["engine"],
    "how": "drained",
    "seconds": 95.0,
    "lossless": True,
}
PLAN = {
    "kind": "plan",
    "run": "r1",
    "take_back": [],
    "first": ["gpu3"],
    "edges_before": False,
    "names_before": {},
    "order": ["gpu1", "gpu2"],
    "serial": [1, 1],
    "held": [],
    "back_after_edges": [],
    "unchanged": ["gpu4"],
    "left": [],
    "pause_after": None,
    "consent": "",
    "problems": [],
    "rows": [{**ROW, "host": "gpu3", "batch": 0, "how": "started"}, ROW, {**ROW, "host": "gpu2", "batch": 2}],
    "notes": [],
    "seconds": 190.0,
    "unknown": [],
}
GATE = {"kind": "gate", "host": "gpu1", "instance": "a", "gate": "token", "ok": True, "detail": "after 0.4 s"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a site whose inventory has gpu1 and edge1, in a project with its playbooks."""
    project, inventory = tmp_path / "project", tmp_path / "site"
    (project / "playbooks").mkdir(parents=True)
    inventory.mkdir()
    (project / "site.yml").touch()
    (project / "playbooks" / "roll_back.yml").touch()
    monkeypatch.setenv("RACKSERVE_PROJECT", str(project))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    gpus = [FleetHost(name, ("vllm_hosts",), None) for name in ("gpu1", "gpu2")]
    hosts = (*gpus, FleetHost("edge1", ("edge_hosts",), None))
    for module in (_site, _rollback):
        monkeypatch.setattr(module, "load_fleet", lambda path: Fleet(path, hosts))
    return inventory


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that sets what runs give; it returns the options of each run."""

    def prepare(*records: dict[str, Any], failed: str = "") -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        failures = (TaskFailure("gpu1", "t", failed),) if failed else ()

        def run(playbook: Path, _inventory: Path, **options: Any) -> RunResult:
            seen.append({**options, "playbook": playbook.name})
            options["on_event"](RunEvent(EventKind.PLAY, play="p"))
            for record in records:
                kind = EventKind.FAILED if failed else EventKind.OK
                options["on_event"](RunEvent(kind, host="gpu1", data={"rackserve_record": record}))
            hosts = (HostStats("gpu1", ok=1, failed=len(failures)),)
            return RunResult(2 if failed else 0, "done", hosts, failures, (), options["record_dir"])

        monkeypatch.setattr(_ansible, "run_playbook", run)
        return seen

    return prepare


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    terminal = io.StringIO(text)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)


def test_the_plan_is_shown_before_the_question(
    site: Path, runs: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = runs(PLAN, GATE)
    answer(monkeypatch, "y\n")
    assert main(["rollout", "-i", str(site)]) == 0
    assert [one["check"] for one in seen] == [True, False]
    assert seen[0]["variables"] == {"stack_rollout_stop_after": "plan"}
    assert seen[1]["variables"] == {"stack_rollout_pause": str(pause_file(site))}
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["BATCH", "HOST", "INSTANCE", "HOW", "RESTARTS", "TAKES", "LOSES", "WHAT"]
    assert lines[1][:3] == ["first", "gpu3", "a"]
    row = "2 gpu2 a drained at every edge engine about 95 s nothing max_num_seqs 8 -> 16"
    assert row.split() in lines
    assert "unchanged: gpu4\n2 batches after the hosts that serve nothing, about 3 min at most\n" in out
    assert out.endswith("the rollout is complete: gpu3, gpu1, gpu2 changed\n")
    assert "Start this rollout? [y/N]" in err
    assert "    gpu1:a token: passed; after 0.4 s\n" in err


@pytest.mark.parametrize("rows", [[{**ROW, "what": ["driver 570.1 -> 580.1"]}], []], ids=["changes", "unchanged"])
def test_the_plan_of_the_drivers_is_shown_and_is_no_generation_to_return_to(
    site: Path, runs: Any, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]]
) -> None:
    runs({**PLAN, "kind": "driver_plan", "rows": rows}, {**PLAN, "rows": []})
    assert main(["rollout", "--yes", "-i", str(site)]) == 0
    assert ("driver 570.1 -> 580.1" in capsys.readouterr().err) == bool(rows)
    assert last_rollout(site).changed == {}


@pytest.mark.parametrize("text", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_changed(
    site: Path, runs: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    seen = runs(PLAN)
    answer(monkeypatch, text)
    assert main(["rollout", "-i", str(site)]) == 0
    assert [one["check"] for one in seen] == [True]
    assert "nothing was changed" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["rollout"], ["rollback", "gpu1"]])
def test_without_a_terminal_a_yes_is_an_option(
    site: Path, runs: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    seen = runs(PLAN)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main([*argv, "-i", str(site)]) == 2
    assert not seen
    assert "there is no terminal; give --yes" in capsys.readouterr().err
    assert main([*argv, "-i", str(site), "--yes"]) == 0


def test_options_are_variables_of_the_run(site: Path, runs: Any) -> None:
    seen = runs(PLAN)
    argv = ["rollout", "--yes", "-i", str(site), "--consent", "window", "--steps", "1,2,50%", "--pause-after", "gpu2"]
    assert main([*argv, "--allow-downgrade", "r", "--limit", "gpu1"]) == 0
    assert (seen[0]["limit"], seen[0]["check"]) == ("gpu1", False)
    assert seen[0]["variables"] == {
        "stack_rollout_consent": "window",
        "stack_rollout_steps": [1, 2, "50%"],
        "stack_rollout_pause_after": "gpu2",
        "stack_rollout_pause": str(pause_file(site)),
        "stack_downgrade_reason": "r",
    }


def test_wrong_steps_start_nothing(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = runs(PLAN)
    assert main(["rollout", "--yes", "-i", str(site), "--steps", "1,x"]) == 2
    assert not seen
    assert "stack_rollout_steps: 'x'" in capsys.readouterr().err


def test_check_prints_the_plan_and_ends(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lossy = {**PLAN, "problems": [{"names": ["m"], "hosts": ["gpu1"], "why": "'m' waits", "fix": "hold"}]}
    seen = runs(lossy, failed="nothing was changed, because requests would be lost: 'm' waits; hold")
    assert main(["rollout", "--check", "-i", str(site)]) == 1
    assert [one["check"] for one in seen] == [True]
    out, err = capsys.readouterr()
    assert "loses requests: 'm' waits; hold" in out
    assert "requests would be lost" in err
    assert main(["rollout", "--check", "--json", "-i", str(site)]) == 1
    assert json.loads(capsys.readouterr().out)["plan"]["problems"][0]["names"] == ["m"]


def test_json_has_stable_keys(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runs(PLAN, {**GATE, "ok": False}, {"kind": "pause", "after": 1})
    assert main(["rollout", "--yes", "--json", "-i", str(site)]) == 0
    said = json.loads(capsys.readouterr().out)
    keys = ["failures", "gates", "hosts", "messages", "ok", "paused_after", "plan", "record", "unreachable"]
    assert sorted(said) == keys
    assert (said["gates"][0]["ok"], said["paused_after"], said["plan"]["order"]) == (False, 1, ["gpu1", "gpu2"])


def test_a_pause_is_said(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runs(PLAN, {"kind": "batch", "number": 1, "of": 2, "hosts": ["gpu1"]}, {"kind": "pause", "after": 1})
    assert main(["rollout", "--yes", "-i", str(site)]) == 0
    out, err = capsys.readouterr()
    assert out == "paused after batch 1 of 2; go on with: rackserve rollout --resume\n"
    assert "    batch 1 of 2: gpu1\n" in err


def test_a_failed_gate_ends_with_1(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runs(PLAN, {**GATE, "ok": False, "detail": "no token in 60 s"}, failed="no token in 60 s")
    assert main(["rollout", "--yes", "-i", str(site)]) == 1
    out, err = capsys.readouterr()
    assert "gpu1:a token: FAILED; no token in 60 s" in err
    assert "--resume, or --abort to return" in out


def test_resume_takes_the_options_of_the_last_rollout(site: Path, runs: Any) -> None:
    seen = runs(PLAN, failed="a controller died")
    argv = ["rollout", "--yes", "-i", str(site)]
    assert main([*argv, "--consent", "window", "--limit", "gpu1", "--steps", "2"]) == 1
    seen = runs({**PLAN, "rows": [{**ROW, "host": "gpu2", "wanted": "newer"}]})
    assert main([*argv, "--resume", "--consent", "a longer window"]) == 0
    assert seen[0]["limit"] == "gpu1"
    assert seen[0]["variables"]["stack_rollout_consent"] == "a longer window"
    assert seen[0]["variables"]["stack_rollout_steps"] == [2]
    assert last_rollout(site).changed == {"gpu3:a": "new", "gpu1:a": "new", "gpu2:a": "newer"}


def test_abort_returns_what_the_last_rollout_changed(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runs(PLAN)
    argv = ["rollout", "--yes", "-i", str(site)]
    assert main(argv) == 0
    seen = runs()
    assert main([*argv, "--abort"]) == 0
    assert seen[0]["playbook"] == "roll_back.yml"
    assert seen[0]["variables"] == {
        "stack_rollback_hosts": ["gpu3", "gpu1", "gpu2"],
        "stack_rollback_from": {"gpu3:a": "new", "gpu1:a": "new", "gpu2:a": "new"},
    }
    assert "gpu3, gpu1, gpu2: on the generation before" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--abort", "--resume"])
def test_a_rollout_that_never_was_cannot_be_gone_on_with(
    site: Path, runs: Any, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    seen = runs()
    assert main(["rollout", "--yes", option, "-i", str(site)]) == 2
    assert not seen
    assert "knows no rollout of" in capsys.readouterr().err


def test_a_rollout_that_changed_nothing_has_nothing_to_return(
    site: Path, runs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    runs({**PLAN, "rows": []})
    assert main(["rollout", "--yes", "-i", str(site)]) == 0
    assert "no host changed" in capsys.readouterr().out
    assert main(["rollout", "--yes", "--abort", "-i", str(site)]) == 2
    assert "nothing to return" in capsys.readouterr().err


def test_pause_asks_the_run_that_goes_on(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "--pause", "-i", str(site)]) == 2
    assert "nothing to pause" in capsys.readouterr().err
    assert not pause_file(site).exists()
    with run_lock(site):
        assert main(["rollout", "--pause", "-i", str(site)]) == 0
    assert pause_file(site).exists()
    runs(PLAN)
    assert main(["rollout", "--check", "-i", str(site)]) == 0
    assert pause_file(site).exists()
    assert main(["rollout", "--yes", "-i", str(site)]) == 0
    assert not pause_file(site).exists()


def test_rollback(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = runs()
    assert main(["rollback", "--yes", "-i", str(site), "gpu2"]) == 0
    assert (seen[0]["playbook"], seen[0]["variables"]) == ("roll_back.yml", {"stack_rollback_hosts": ["gpu2"]})
    assert capsys.readouterr().out == "gpu2: on the generation before\n"
    assert main(["rollback", "--yes", "--json", "-i", str(site)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert sorted(said) == ["hosts", "messages", "ok", "record", "returned"]
    assert said["returned"] == ["gpu1", "gpu2"]


def test_rollback_of_an_unknown_host(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = runs()
    assert main(["rollback", "--yes", "-i", str(site), "edge1"]) == 2
    assert not seen
    assert "edge1: no vLLM host of" in capsys.readouterr().err


def test_rollback_that_fails(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runs(failed="gpu1:a has no generation before")
    assert main(["rollback", "--yes", "-i", str(site), "gpu1"]) == 1
    assert "gpu1: t: gpu1:a has no generation before" in capsys.readouterr().err


def test_an_unreadable_record_is_said(site: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runs(PLAN)
    assert main(["rollout", "--yes", "-i", str(site)]) == 0
    pause_file(site).with_suffix(".json").write_text("{")
    assert main(["rollout", "--yes", "--resume", "-i", str(site)]) == 2
    assert "cannot be read; remove it" in capsys.readouterr().err
