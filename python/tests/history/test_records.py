"""Records of runs: signed, chained, merged from the controller and the hosts; what was altered or removed is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rackserve import history
from rackserve.history import HeldLock, Liveness, PresentRun, _holder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.needs("ssh-keygen")
EMPTY = {"count": 0, "digest": ""}
SECRET = {"kind": "gate", "gate": "token", "ok": True}


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def run_of(run: str, heads: Mapping[str, Mapping[str, Any]], *records: dict[str, Any]) -> PresentRun:
    holder = history.this_process(run, "site.yml", "lab", history.fingerprint())
    made = PresentRun(holder, locks={host: HeldLock("/f", head) for host, head in heads.items()})
    for record in records:
        made.take_result(str(record.get("host", "gpu1")), "Task", {"changed": True, history.KEY: record})
    return made


def head_of(lines: list[str]) -> dict[str, Any]:
    return {"count": len(lines), "digest": history.digest_of(lines[-1]) if lines else ""}


def three_runs() -> list[str]:
    lines: list[str] = []
    for number in range(3):
        made = run_of(f"2026-{number}", {"gpu1": head_of(lines)}, {"kind": "switch", "before": "a", "after": "b"})
        made.sign_lines("ok")
        lines.append(made.lines["gpu1"])
    return lines


def problems(controller: list[str], hosts: dict[str, list[str]]) -> list[str]:
    return [problem for run in history.merge(controller, hosts, verify=True) for problem in run.problems]


def test_an_intact_history_names_the_key_of_each_run() -> None:
    runs = history.merge([], {"gpu1": three_runs()}, verify=True)
    assert [run.id for run in runs] == ["2026-0", "2026-1", "2026-2"]
    assert [run.keys for run in runs] == [{history.fingerprint()}] * 3
    assert not [problem for run in runs for problem in run.problems]


def test_an_altered_line_is_told() -> None:
    lines = three_runs()
    lines[1] = lines[1].replace('"outcome":"ok"', '"outcome":"failed"')
    assert "gpu1: the signature is not one of this record; it was altered" in problems([], {"gpu1": lines})


@pytest.mark.parametrize("gone", [0, 1])
def test_a_removed_line_is_told(gone: int) -> None:
    lines = three_runs()
    del lines[gone]
    assert any("does not follow the line before it" in problem for problem in problems([], {"gpu1": lines}))


def test_a_last_line_that_was_removed_is_told_by_the_controller_that_wrote_it() -> None:
    made = run_of("2026-0", {"gpu1": EMPTY}, {"kind": "switch"})
    made.sign_lines("ok")
    stored = {"gpu1": history.digest_of(made.lines["gpu1"])}
    line = history._sign.signed_line({**made.entry("ok"), "stored": stored, "sites": []})
    assert not problems([line], {"gpu1": [made.lines["gpu1"]]})
    assert problems([line], {"gpu1": []}) == ["gpu1: the line of this run is missing or altered in the host's history"]
    assert not problems([line], {})  # the host was not read


def test_a_line_signed_by_another_key_than_it_names_is_told() -> None:
    made = run_of("2026-0", {"gpu1": EMPTY}, {"kind": "switch"})
    made.holder["key"] = "SHA256:another"
    made.sign_lines("ok")
    assert any(
        "and names the key SHA256:another" in problem for problem in problems([], {"gpu1": [made.lines["gpu1"]]})
    )


def test_the_history_of_another_host_is_told() -> None:
    assert any("gpu2: line 1 does not follow" in problem for problem in problems([], {"gpu2": three_runs()}))


def test_what_is_no_record_is_told_and_hides_nothing() -> None:
    found = history.merge([], {"gpu1": ["{cut", *three_runs()]}, verify=True)
    assert len(found) == 4
    assert any(run.problems for run in found)


def test_the_parts_of_a_run_on_its_hosts_are_one_run() -> None:
    records = ({"kind": "switch", "host": "gpu1"}, {"kind": "switch", "host": "gpu2"}, {"kind": "bundle", "name": "b"})
    made = run_of("2026-0", {"gpu1": EMPTY, "gpu2": EMPTY, "edge1": EMPTY}, *records)
    made.sign_lines("ok")
    assert set(made.lines) == {"gpu1", "gpu2"}
    (run,) = history.merge([], {host: [line] for host, line in made.lines.items()}, verify=True)
    assert run.entry["changed"] == {"gpu1": 2, "gpu2": 1}
    assert sorted(one["kind"] + one.get("host", "") for one in run.entry["records"]) == [
        "bundle",
        "switchgpu1",
        "switchgpu2",
    ]
    assert not run.problems


def test_selected_by_host() -> None:
    runs = history.merge([], {"gpu1": three_runs()}, verify=False)
    assert len(history.selected(runs, ["gpu1"])) == 3
    assert history.selected(runs, ["gpu2"]) == []


def test_results_that_no_log_hides_say_nothing() -> None:
    made = run_of("r", {"gpu1": EMPTY})
    made.take_result("gpu1", "t", {"censored": "hidden", "changed": True, history.KEY: SECRET})
    made.take_result("gpu1", "t", {"results": [{"censored": "hidden", history.KEY: SECRET}, {history.KEY: SECRET}]})
    assert len(made.records) == 1
    assert made.changed == {"gpu1": 1}


def test_only_what_changed_or_was_told_leaves_a_record() -> None:
    assert not run_of("r", {"gpu1": EMPTY}).has_changed()
    made = run_of("r", {"gpu1": EMPTY})
    for _ in range(2):
        made.take_result("gpu1", "t", {history.KEY: {"kind": "bundle", "name": "b"}})
    assert len(made.records) == 1
    assert not made.has_changed()
    made.take_result("gpu1", "t", {history.KEY: [SECRET, SECRET]})
    assert made.has_changed()


def this() -> dict[str, Any]:
    return history.this_process("r", "site.yml", "lab", history.fingerprint())


def test_this_process_runs() -> None:
    assert history.liveness(this()) is Liveness.RUNNING


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"started": 1}, Liveness.ENDED),  # the id of a process is used again
        ({"boot": "before"}, Liveness.ENDED),
        ({"boot": "before", "key": "SHA256:another"}, Liveness.UNKNOWN),  # a clone of this machine
        ({"pidns": "pid:[1]"}, Liveness.UNKNOWN),  # in a container of this machine
        ({"machine": "f" * 32}, Liveness.UNKNOWN),
        ({"host": "another"}, Liveness.UNKNOWN),
        ({"pid": "x"}, Liveness.UNKNOWN),
    ],
)
def test_what_is_known_of_a_process(changes: dict[str, Any], known: Liveness) -> None:
    assert history.liveness({**this(), **changes}) is known


def test_a_machine_without_an_id_knows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_holder, "_MACHINE_ID", tmp_path / "none")
    assert history.liveness(this()) is Liveness.UNKNOWN


def test_a_process_that_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = {**this(), "pid": process.pid, "started": _holder._stat(process.pid, _holder._START_FIELD)}
    assert history.liveness(holder) is Liveness.RUNNING
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert history.liveness(holder) is Liveness.ENDED  # a zombie
    process.communicate()
    assert history.liveness(holder) is Liveness.ENDED


def test_a_process_that_proc_hides_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = this()
    monkeypatch.setattr(_holder, "_stat", lambda *_: None)
    assert history.liveness(holder) is Liveness.RUNNING


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (61, "1 min"), (7300, "2 h"), (200000, "2 d")])
def test_span(seconds: float, text: str) -> None:
    assert history.span(seconds) == text


def test_refusals_of_one_run_are_one_line() -> None:
    held = {"refused": {"holder": {**this(), "host": "other"}, "age_s": 60.0, "seen_s": 5.0, "busy": True}}
    said = history.refusals({"gpu2": held, "gpu1": held, "edge1": {"text": "cannot take the lock"}, "gpu3": {}})
    first, second = said.splitlines()
    assert first == "edge1: cannot take the lock"
    assert second.startswith("gpu1, gpu2: locked by ")
    assert "a task is at work there now" in second
    assert history.refusals({"gpu1": {}}) == ""


def test_ids_of_runs_sort_by_start() -> None:
    ids = [history.new_run_id("site.yml") for _ in range(20)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 20
    assert json.dumps(ids[0]).count("-site-") == 1
