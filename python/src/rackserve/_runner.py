"""The only importer of ansible_runner: starts a playbook, hands on its events, returns what became of each host.

Untyped data ends here. No secret is given to ansible-runner (it writes extra variables, passwords and the environment
to files); the one file it writes with the whole environment in it is removed before Ansible starts.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import sys
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ansible_runner

from rackserve._paths import project_root, state_dir
from rackserve.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

log = logging.getLogger(__name__)

_HIDDEN: Final = "the task hides its output (no_log); its values are not shown here"
_NON_ZERO: Final = "non-zero return code"
_TAIL_LINES: Final = 12
_SSH_ADDRESS: Final = re.compile(r"connect to host (\S+) port (\d+)")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
# Nobody can answer ssh's question about an unknown host key while the runner owns the terminal: fail, and say so.
_SSH_NO_QUESTION: Final = "-o StrictHostKeyChecking=yes"


class EventKind(StrEnum):
    """What an event says."""

    PLAY = "play"
    TASK = "task"
    OK = "ok"
    CHANGED = "changed"
    FAILED = "failed"
    IGNORED = "ignored"
    SKIPPED = "skipped"
    UNREACHABLE = "unreachable"
    STATS = "stats"


_HOST_EVENTS: Final = {
    "runner_on_ok": EventKind.OK,
    "runner_on_failed": EventKind.FAILED,
    "runner_on_skipped": EventKind.SKIPPED,
    "runner_on_unreachable": EventKind.UNREACHABLE,
}


@dataclass(frozen=True)
class RunEvent:
    """One thing that happened in a run; `data` is a task's result, and is never printed as it is."""

    kind: EventKind
    play: str = ""
    role: str = ""
    task: str = ""
    host: str = ""
    seconds: float = 0.0
    message: str = ""
    data: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class HostStats:
    """Ansible's recap of one host."""

    name: str
    ok: int = 0
    changed: int = 0
    failed: int = 0
    unreachable: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class TaskFailure:
    """The task that failed on a host (or could not reach it), and its one message."""

    host: str
    task: str
    message: str


@dataclass(frozen=True)
class RunResult:
    """The outcome of a playbook run."""

    rc: int
    status: str
    hosts: tuple[HostStats, ...]
    failures: tuple[TaskFailure, ...]
    unreachable: tuple[TaskFailure, ...]
    record_dir: Path

    @property
    def ok(self) -> bool:
        """Whether the run ended well on every host."""
        return self.rc == 0 and not self.unreachable and all(h.failed == 0 and h.unreachable == 0 for h in self.hosts)


def new_record_dir(playbook: Path) -> Path:
    """Make and return the folder that keeps the record of one run, mode 0700."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    path = state_dir() / "runs" / f"{stamp}-{playbook.stem}"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700)
    return path


@contextlib.contextmanager
def run_lock(inventory: Path) -> Iterator[None]:
    """Hold the run lock of an inventory: two runs that change the same site never overlap.

    Raises:
        RunError: another run holds it; the message names its process and start.
    """
    folder = state_dir() / "locks"
    folder.mkdir(mode=0o700, exist_ok=True)
    site = inventory.resolve()
    path = folder / f"{hashlib.sha256(str(site).encode()).hexdigest()[:16]}.lock"
    with path.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(_held_message(path, site)) from None
        handle.truncate(0)
        started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        handle.write(json.dumps({"pid": os.getpid(), "started": started, "inventory": str(site)}) + "\n")
        handle.flush()
        yield
        # The file stays: removing it would let a third run lock another inode of the same name.


def _held_message(path: Path, site: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        who = f"process {holder['pid']}, started {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"  # it took the lock and has not written its name yet
    return f"a run on the inventory {site} is going on ({who}); wait for its end, then run this command again"


def run_playbook(
    playbook: Path,
    inventory: Path,
    *,
    on_event: Callable[[RunEvent], None],
    record_dir: Path,
    limit: str | None = None,
    check: bool = False,
    tags: Sequence[str] = (),
    variables: Mapping[str, object] | None = None,
) -> RunResult:
    """Run a playbook to its end and keep its record in `record_dir` (summary.json and Ansible's own output).

    Args:
        playbook: the playbook's file.
        inventory: the site's directory.
        on_event: called for every play, task and host result, in the order they happen.
        record_dir: a new folder, see `new_record_dir`.
        limit: Ansible's host pattern, or all hosts.
        check: run in check mode: change nothing.
        tags: only the tasks of these tags.
        variables: extra variables; they stand in the record, so no secrets.

    Raises:
        RunError: Ansible could not be started, or ended before any host had a task.
    """
    recorder = _Recorder(on_event)
    started = dt.datetime.now(dt.UTC)
    with _signals_restored():
        runner = ansible_runner.run(
            private_data_dir=str(record_dir),
            project_dir=str(project_root()),
            ident="ansible",
            playbook=str(playbook),
            inventory=str(inventory),
            limit=limit,
            cmdline="--check" if check else None,
            tags=",".join(tags) or None,
            **({"extravars": dict(variables)} if variables else {}),
            envvars=_environment(),
            quiet=True,
            suppress_env_files=True,
            event_handler=recorder.take,
            status_handler=_forget_environment,
        )
    shutil.rmtree(record_dir / "artifacts" / "ansible" / "fact_cache", ignore_errors=True)
    result = recorder.result(int(runner.rc if runner.rc is not None else 1), str(runner.status), record_dir)
    _write_summary(result, playbook, inventory, started, limit=limit, check=check)
    if result.status == "canceled":
        left = "nothing was changed" if check else "hosts may be half done: run it again"
        raise RunError(f"the run was interrupted; {left}. Record: {record_dir}")
    if not recorder.saw_stats or (result.rc != 0 and not result.failures and not result.unreachable):
        raise RunError(f"ansible-playbook {playbook.name} could not run (exit {result.rc})\n{recorder.complaint()}")
    return result


def _environment() -> dict[str, str]:
    bin_dir = str(Path(sys.executable).parent)  # not resolved: the venv's folder, where ansible-playbook lies
    callbacks = project_root() / "python" / "src" / "rackserve" / "ansible" / "callback"
    others = os.environ.get("ANSIBLE_CALLBACK_PLUGINS")
    return {
        "PATH": f"{bin_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(project_root() / "ansible.cfg"),
        # ansible-runner adds its own folder to this variable, which hides the one that ansible.cfg names.
        "ANSIBLE_CALLBACK_PLUGINS": f"{callbacks}{os.pathsep}{others}" if others else str(callbacks),
        "ANSIBLE_SSH_EXTRA_ARGS": os.environ.get("ANSIBLE_SSH_EXTRA_ARGS", _SSH_NO_QUESTION),
        "ANSIBLE_NOCOLOR": "1",
    }


def _forget_environment(status: Mapping[str, Any], runner_config: Any) -> None:  # noqa: ANN401 - ansible-runner's class is untyped
    """Remove the file in which ansible-runner keeps the whole environment of this process, secrets too."""
    if status["status"] == "running":
        (Path(runner_config.artifact_dir) / "command").unlink(missing_ok=True)


@contextlib.contextmanager
def _signals_restored() -> Iterator[None]:
    """Give SIGINT and SIGTERM back: ansible-runner takes both to stop a run, and keeps them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Recorder:
    """Turns ansible-runner's events into ours, and remembers what the result needs."""

    def __init__(self, on_event: Callable[[RunEvent], None]) -> None:
        self._on_event = on_event
        self._failures: list[TaskFailure] = []
        self._unreachable: list[TaskFailure] = []
        self._stats: Mapping[str, Any] = {}
        self._output: list[str] = []
        self.saw_stats = False

    def take(self, raw: Mapping[str, Any]) -> bool:
        name = str(raw.get("event", ""))
        data: Mapping[str, Any] = raw.get("event_data") or {}
        if name in ("verbose", "error", "warning", "playbook_on_no_hosts_matched"):
            self._output.extend(_ANSI.sub("", str(raw.get("stdout", ""))).splitlines())
        elif name == "playbook_on_stats":
            self._stats, self.saw_stats = data, True
            self._on_event(RunEvent(EventKind.STATS))
        elif name in ("playbook_on_play_start", "playbook_on_task_start", "playbook_on_handler_task_start"):
            kind = EventKind.PLAY if name == "playbook_on_play_start" else EventKind.TASK
            self._on_event(_event(kind, data))
        elif name in _HOST_EVENTS:
            self._take_host(_event(_kind_of(name, data), data))
        return True

    def _take_host(self, event: RunEvent) -> None:
        if event.kind is EventKind.FAILED:
            self._failures.append(TaskFailure(event.host, event.task, event.message))
        elif event.kind is EventKind.UNREACHABLE:
            self._unreachable.append(TaskFailure(event.host, event.task, event.message))
        self._on_event(event)

    def result(self, rc: int, status: str, record_dir: Path) -> RunResult:
        hosts = parse_stats(self._stats)
        # A failure that a rescue took care of is not one: Ansible's recap decides.
        failed = {host.name for host in hosts if host.failed}
        failures = tuple(failure for failure in self._failures if failure.host in failed)
        return RunResult(rc, status, hosts, failures, tuple(self._unreachable), record_dir)

    def complaint(self) -> str:
        lines = [line for line in self._output if line.strip()]
        errors = [index for index, line in enumerate(lines) if "ERROR" in line]
        start = errors[0] if errors else max(0, len(lines) - _TAIL_LINES)
        return "\n".join(lines[start : start + _TAIL_LINES]) or "it printed nothing"


def _event(kind: EventKind, data: Mapping[str, Any]) -> RunEvent:
    result: Mapping[str, Any] = data.get("res") or {}
    return RunEvent(
        kind=kind,
        play=str(data.get("play") or ""),
        role=str(data.get("role") or ""),
        task=str(data.get("task") or ""),
        host=str(data.get("host") or ""),
        seconds=float(data.get("duration") or 0.0),
        message=failure_message(result) if kind in (EventKind.FAILED, EventKind.UNREACHABLE) else "",
        data=result,
    )


def _kind_of(name: str, data: Mapping[str, Any]) -> EventKind:
    kind = _HOST_EVENTS[name]
    if kind is EventKind.OK and (data.get("res") or {}).get("changed"):
        return EventKind.CHANGED
    if kind is EventKind.FAILED and data.get("ignore_errors"):
        return EventKind.IGNORED
    return kind


def failure_message(result: Mapping[str, Any]) -> str:
    """Return the one message of a failed task's result: never its arguments, nothing that no_log hides."""
    if "censored" in result:
        return _HIDDEN
    items = [item for item in result.get("results", []) if item.get("failed") or item.get("unreachable")]
    if items:
        return failure_message(items[0])
    message = str(result.get("msg") or "the task failed and gave no message").strip()
    if message == _NON_ZERO:
        last = str(result.get("stderr") or result.get("stdout") or "").strip().splitlines()[-3:]
        message = "\n".join([f"the command ended with {result.get('rc')}", *last])
    return message


def unreachable_message(failure: TaskFailure, address: str | None = None) -> str:
    """Say which host could not be reached, where it was looked for, and what to look at."""
    text = " ".join(failure.message.split())
    found = _SSH_ADDRESS.search(text)
    where = address or (found.group(1) if found else None)
    place = f"{failure.host} ({where})" if where and where != failure.host else failure.host
    reason = text.rpartition("ssh: ")[2]
    return (
        f"cannot reach {place} over SSH: {reason}; check that it is up, its ansible_host, the user and key, "
        "and that its host key is known"
    )


def parse_stats(data: Mapping[str, Any]) -> tuple[HostStats, ...]:
    """Turn Ansible's recap (one table per counter) into one row per host."""
    columns = {"ok": "ok", "changed": "changed", "failed": "failures", "unreachable": "dark", "skipped": "skipped"}
    names = sorted({name for column in columns.values() for name in data.get(column, {})})
    return tuple(
        HostStats(name, **{key: int(data.get(column, {}).get(name, 0)) for key, column in columns.items()})
        for name in names
    )


def _write_summary(
    result: RunResult, playbook: Path, inventory: Path, started: dt.datetime, *, limit: str | None, check: bool
) -> None:
    summary = {
        "playbook": str(playbook),
        "inventory": str(inventory),
        "limit": limit,
        "check": check,
        "started": started.isoformat(timespec="seconds"),
        "ended": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "rc": result.rc,
        "status": result.status,
        "hosts": [asdict(host) for host in result.hosts],
        "failures": [asdict(failure) for failure in result.failures],
        "unreachable": [asdict(failure) for failure in result.unreachable],
    }
    path = result.record_dir / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    path.chmod(0o600)
