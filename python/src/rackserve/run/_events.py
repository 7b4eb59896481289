"""A run of Ansible, typed: events, each host's recap, failures and their messages."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_HIDDEN: Final = "the task hides its output (no_log); its values are not shown here"
_NON_ZERO: Final = "non-zero return code"
_TAIL_LINES: Final = 12
_SSH_ADDRESS: Final = re.compile(r"connect to host (\S+) port (\d+)")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")


class EventKind(StrEnum):
    """The kind of an event."""

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
    """One event of a run; `data` is a task's result, and is never printed as it is."""

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


class Recorder:
    """Converts ansible-runner's events, and keeps what the result needs."""

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
        # Neither is a host that a task went on without.
        gone = {host.name for host in hosts if host.unreachable}
        unreachable = tuple(failure for failure in self._unreachable if failure.host in gone)
        return RunResult(rc, status, hosts, failures, unreachable, record_dir)

    def error_output(self) -> str:
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
    """Describe which host could not be reached, at which address, and what to check."""
    text = " ".join(failure.message.split())
    found = _SSH_ADDRESS.search(text)
    where = address or (found.group(1) if found else None)
    place = f"{failure.host} ({where})" if where and where != failure.host else failure.host
    if "IDENTIFICATION HAS CHANGED" in text:
        return (
            f"{place} has another SSH host key than this controller knows, and nothing was done there: if the machine "
            f"was replaced, remove the old key (ssh-keygen -R {where or failure.host}) and add the new one, compared "
            "with that at its console; if not, another machine answers in its place"
        )
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
