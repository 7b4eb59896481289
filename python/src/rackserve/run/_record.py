"""Records of runs on the controller: folder and summary, and the lock that prevents two runs of a site at once."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from rackserve._paths import state_dir
from rackserve.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rackserve.run._events import RunResult


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
