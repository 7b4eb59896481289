"""Folder and summary of a run on the controller, and a lock there: it refuses at once what the hosts' locks would."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rackserve import history
from rackserve._paths import state_dir
from rackserve.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rackserve.run._events import RunResult


def new_record_dir(playbook: Path) -> Path:
    """Make and return the folder that keeps the record of one run, mode 0700; its name is the run's id."""
    path = state_dir() / "runs" / history.new_run_id(playbook.name)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700)
    return path


@contextlib.contextmanager
def run_lock(inventory: Path) -> Iterator[None]:
    """Hold this controller's lock of an inventory for a command, before Ansible starts.

    Raises:
        RunError: another command holds it; the message names its process and start.
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
        handle.write(json.dumps(history.this_process("", "rackserve", site.name, "")) + "\n")
        handle.flush()
        yield
        # The file stays: removing it would let a third run lock another inode of the same name.


def _held_message(path: Path, site: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        since = dt.datetime.fromisoformat(holder["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{site}: locked by another process, which has not written its name yet; wait for its end"
    age_s = max(0.0, (dt.datetime.now(dt.UTC) - since).total_seconds())
    return history.refusal([str(site)], {"holder": holder, "age_s": age_s}, history.Liveness.RUNNING)


def write_summary(
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
