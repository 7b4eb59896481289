"""The runner: events in, frozen result out; its lock and its record. Ansible itself is faked."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.errors import RunError
from rackserve.run import (
    EventKind,
    HostStats,
    RunEvent,
    RunResult,
    TaskFailure,
    new_record_dir,
    run_lock,
    run_playbook,
    unreachable_message,
)
from rackserve.run._events import _HIDDEN, failure_message

if TYPE_CHECKING:
    from collections.abc import Callable

STATS = {"ok": {"gpu1": 3, "gpu2": 1}, "changed": {"gpu1": 1}, "failures": {"gpu1": 1}, "dark": {"gpu2": 1}}


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def fake_ansible(
    monkeypatch: pytest.MonkeyPatch, events: list[dict[str, Any]], rc: int = 0, status: str = "successful"
) -> dict[str, Any]:
    """Replace ansible-runner by one that gives these events; return what it was called with."""
    seen: dict[str, Any] = {}

    def run(**kwargs: Any) -> SimpleNamespace:
        seen.update(kwargs)
        artifacts = Path(kwargs["private_data_dir"]) / "artifacts" / "ansible"
        (artifacts / "fact_cache").mkdir(parents=True)
        (artifacts / "command").write_text(json.dumps({"env": dict(os.environ)}), encoding="utf-8")
        kwargs["status_handler"]({"status": "starting"}, runner_config=SimpleNamespace(artifact_dir=str(artifacts)))
        kwargs["status_handler"]({"status": "running"}, runner_config=SimpleNamespace(artifact_dir=str(artifacts)))
        seen["left"] = sorted(path.name for path in artifacts.iterdir())
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for event in events:
            kwargs["event_handler"](event)
        return SimpleNamespace(rc=rc, status=status)

    monkeypatch.setattr("ansible_runner.run", run)
    return seen


def event(name: str, **data: Any) -> dict[str, Any]:
    return {"event": name, "event_data": data}


def run(tmp_path: Path, on_event: Callable[[RunEvent], None] = lambda _event: None, **options: Any) -> RunResult:
    record = new_record_dir(Path("site.yml"))
    return run_playbook(Path("/p/site.yml"), tmp_path, on_event=on_event, record_dir=record, **options)


def test_events_and_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = {"role": "nginx", "task": "install | Install it", "play": "Edge"}
    fake_ansible(
        monkeypatch,
        [
            event("playbook_on_play_start", play="Edge"),
            event("playbook_on_task_start", **task),
            event("runner_on_ok", host="gpu1", res={"changed": True}, duration=1.5, **task),
            event("runner_on_failed", host="gpu1", res={"msg": "no disk"}, **task),
            event("runner_on_failed", host="gpu3", res={"msg": "rescued"}, **task),
            event("runner_on_failed", host="gpu1", res={"msg": "no matter"}, ignore_errors=True, **task),
            event("runner_on_unreachable", host="gpu2", res={"msg": "no route"}, **task),
            event("runner_on_unreachable", host="gpu3", res={"msg": "ignore_unreachable"}, **task),
            event("playbook_on_stats", **STATS),
        ],
        rc=4,
        status="failed",
    )
    events: list[RunEvent] = []
    result = run(tmp_path, events.append)
    kinds = [item.kind for item in events]
    assert kinds == [
        EventKind.PLAY,
        EventKind.TASK,
        EventKind.CHANGED,
        EventKind.FAILED,
        EventKind.FAILED,
        EventKind.IGNORED,
        EventKind.UNREACHABLE,
        EventKind.UNREACHABLE,
        EventKind.STATS,
    ]
    assert (events[2].role, events[2].host, events[2].seconds) == ("nginx", "gpu1", 1.5)
    assert result.failures == (TaskFailure("gpu1", "install | Install it", "no disk"),)
    assert result.unreachable == (TaskFailure("gpu2", "install | Install it", "no route"),)
    assert result.hosts == (HostStats("gpu1", ok=3, changed=1, failed=1), HostStats("gpu2", ok=1, unreachable=1))
    assert not result.ok


def test_the_record_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-of-the-test")
    before = signal.getsignal(signal.SIGTERM)
    seen = fake_ansible(monkeypatch, [event("playbook_on_stats", ok={"gpu1": 1})])
    result = run(tmp_path, limit="gpu1", check=True, tags=["verify"])
    assert result.ok
    assert seen["left"] == ["fact_cache"]
    assert "canary-of-the-test" not in repr(seen)
    assert (seen["limit"], seen["cmdline"], seen["tags"]) == ("gpu1", "--check", "verify")
    assert "extravars" not in seen
    assert seen["suppress_env_files"]
    kept = [path for path in result.record_dir.rglob("*") if path.is_file()]
    assert kept == [result.record_dir / "summary.json"]
    assert result.record_dir.stat().st_mode & 0o777 == 0o700
    summary = json.loads(kept[0].read_text(encoding="utf-8"))
    assert (summary["check"], summary["limit"], summary["hosts"][0]["name"]) == (True, "gpu1", "gpu1")
    assert summary["started"] <= summary["ended"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_never_began_is_an_error_with_ansibles_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [{"event": "verbose", "stdout": "using a config"}, {"event": "verbose", "stdout": "[ERROR]: no such role"}]
    fake_ansible(monkeypatch, said, rc=4, status="failed")
    with pytest.raises(RunError, match=r"could not run \(exit 4\)\n\[ERROR\]: no such role"):
        run(tmp_path)


def test_a_bad_end_that_no_host_explains_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ansible(monkeypatch, [event("playbook_on_stats", ok={"gpu1": 1})], rc=250, status="failed")
    with pytest.raises(RunError, match="exit 250"):
        run(tmp_path)


def test_an_interrupted_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ansible(monkeypatch, [], rc=254, status="canceled")
    with pytest.raises(RunError, match="interrupted; hosts may be half done"):
        run(tmp_path)
    with pytest.raises(RunError, match="interrupted; nothing was changed"):
        run(tmp_path, check=True)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"msg": "too little disk"}, "too little disk"),
        ({"censored": "hidden", "msg": "secret"}, _HIDDEN),
        ({"msg": "items", "results": [{"msg": "fine"}, {"failed": True, "msg": "bad item"}]}, "bad item"),
        ({"msg": "non-zero return code", "rc": 3, "stderr": "a\nb"}, "the command ended with 3\na\nb"),
        ({}, "the task failed and gave no message"),
    ],
)
def test_failure_message(result: dict[str, Any], message: str) -> None:
    assert failure_message(result) == message


def test_unreachable_message() -> None:
    said = "Failed to connect to the host via ssh: ssh: connect to host 10.89.0.11 port 22: No route to host"
    message = unreachable_message(TaskFailure("gpu1", "t", said))
    assert message.startswith("cannot reach gpu1 (10.89.0.11) over SSH: connect to host 10.89.0.11 port 22: No route")
    assert "; check that it is up" in message
    assert "gpu1 (10.0.0.1)" in unreachable_message(TaskFailure("gpu1", "t", "x"), "10.0.0.1")
    assert "reach gpu1 over" in unreachable_message(TaskFailure("gpu1", "t", "x"))


def test_another_host_key_is_told_as_such() -> None:
    # As OpenSSH 9.2 says it.
    said = "Failed to connect to the host via ssh: @@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@"
    message = unreachable_message(TaskFailure("gpu1", "t", said), "10.0.0.1")
    assert message.startswith("gpu1 (10.0.0.1) has another SSH host key than this controller knows, and nothing was")
    assert "ssh-keygen -R 10.0.0.1" in message
    unknown = unreachable_message(TaskFailure("gpu1", "t", "ssh: Host key verification failed."))
    assert unknown.startswith("cannot reach gpu1 over SSH: Host key verification failed.")


def test_the_lock_names_its_holder_and_is_given_back(tmp_path: Path) -> None:
    with (
        run_lock(tmp_path),
        pytest.raises(RunError, match=rf"locked by .* \(process {os.getpid()}, rackserve on the inventory .* since 20"),
        run_lock(tmp_path / "x" / ".."),
    ):
        pass
    other = tmp_path / "other"
    with run_lock(tmp_path), run_lock(other):
        pass
