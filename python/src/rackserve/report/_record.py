"""Reads the record of a run: its summary, and of Ansible's events only the changes."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackserve._paths import state_dir
from rackserve.errors import InputError
from rackserve.report._types import RunFacts
from rackserve.run import ChangeLog, HostStats, TaskFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackserve.run import TaskChange

_SUMMARY = "summary.json"
_PLAYBOOK = "site.yml"


def find_record(wanted: str | None, inventory: Path) -> Path | None:
    """Return the folder of a run's record.

    Args:
        wanted: its name or path; None for the last run of site.yml that changed this site.
        inventory: the site's.

    Returns:
        None when none is wanted and there is none.

    Raises:
        InputError: when the wanted one is not there.
    """
    runs = state_dir() / "runs"
    if wanted is not None:
        for path in (runs / wanted, Path(wanted).expanduser()):
            if (path / _SUMMARY).is_file():
                return path
        raise InputError(f"there is no record of a run {wanted}; `rackserve apply` prints where it put it ({runs})")
    for path in sorted(runs.glob("*"), reverse=True) if runs.is_dir() else ():
        summary = _summary(path) if (path / _SUMMARY).is_file() else {}
        mine = Path(str(summary.get("inventory", ""))) == inventory
        if mine and Path(str(summary.get("playbook", ""))).name == _PLAYBOOK and not summary.get("check"):
            return path
    return None


def read_run(record: Path) -> RunFacts:
    """Read a record.

    Raises:
        InputError: when its summary is not one.
    """
    summary = _summary(record)
    try:
        started, ended = (dt.datetime.fromisoformat(summary[key]) for key in ("started", "ended"))
        hosts = tuple(HostStats(**host) for host in summary["hosts"])
        failures = tuple(TaskFailure(**failure) for failure in summary["failures"])
        unreachable = tuple(TaskFailure(**failure) for failure in summary["unreachable"])
        return RunFacts(
            name=record.name,
            playbook=Path(summary["playbook"]).name,
            started=started.astimezone(dt.UTC).isoformat(timespec="seconds"),
            seconds=round((ended - started).total_seconds()),
            limit=str(summary["limit"] or ""),
            check=bool(summary["check"]),
            ok=summary["rc"] == 0 and not unreachable,
            hosts=hosts,
            changes=_changes(record),
            problems=failures + unreachable,
        )
    except (KeyError, TypeError, ValueError) as bad:
        raise InputError(f"{record / _SUMMARY} is not the summary of a run ({bad}); give another with --run") from bad


def _summary(record: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((record / _SUMMARY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as bad:
        raise InputError(f"{record / _SUMMARY} cannot be read ({bad}); give another with --run") from bad


def _changes(record: Path) -> tuple[TaskChange, ...]:
    """Return the tasks that changed something in the order in which they ran; of their results nothing is kept."""
    log = ChangeLog()
    for event in _events(record):
        data = event.get("event_data") or {}
        if event.get("event") == "runner_on_ok" and (data.get("res") or {}).get("changed"):
            log.add(str(data.get("role") or ""), str(data.get("task") or ""), str(data.get("host") or ""))
    return log.changes


def _events(record: Path) -> Iterator[dict[str, Any]]:
    folder = record / "artifacts" / "ansible" / "job_events"
    numbered = sorted((int(file.name.split("-")[0]), file) for file in folder.glob("[0-9]*-*.json"))
    for _, file in numbered:
        try:
            event = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # the last one may be half written, where a run was killed
        if isinstance(event, dict):
            yield event
