#!/usr/bin/python
"""Hold one host for one run: take the host's lock, show that the run is alive, give it back with a line of history."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_lock
short_description: Hold a host for one run of a controller
description:
  - The lock is one small file that outlives a reboot. Whoever finds another run's lock changes nothing.
  - Of two runs that take locks at the same time the earlier one (by its id) waits for the later one, and the later one
    gives up at once, so that neither both proceed nor both give up.
options:
  state:
    description: take it, renew it (it must be this run's), give it back, or only read it.
    choices: [take, renew, release, read]
    type: str
    default: take
  folder: {description: Folder of the lock and the history., type: path, default: /var/lib/rackserve}
  run: {description: "Who takes it: a mapping with the key `run`, its id.", type: dict, default: {}}
  replace: {description: Ids of runs whose lock may be replaced., type: list, elements: str, default: []}
  wait_s: {description: Seconds to wait for a later run that gives up., type: float, default: 20}
  line: {description: A line for the history; nothing where empty., type: str, default: ""}
  head: {description: The history as it was when the line was made., type: dict, default: {}}
author: rackserve
"""
EXAMPLES = r"""
- name: Lock the host
  run_lock: {run: {run: 20261130T061425.123456Z-site-3f9a}}
"""
RETURN = r"""
mine: {description: Whether this run holds the lock., type: bool, returned: always}
holder: {description: Who holds it, or null., type: dict, returned: always}
replaced: {description: Whose lock was replaced, or null., type: dict, returned: always}
age_s: {description: Seconds since the holder took it., type: float, returned: always}
seen_s: {description: Seconds since the holder was last seen., type: float, returned: always}
busy: {description: Whether a task of some run is at work on the host., type: bool, returned: always}
head: {description: "Of the history: count of its lines, sha256 of the last one.", type: dict, returned: always}
stored: {description: Whether the line was written., type: bool, returned: always}
lines: {description: The history's lines., type: list, returned: when read}
"""

import fcntl
import hashlib
import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_host import host_lock, sync_folder, write_durably

HOLDER = "lock.json"
HISTORY = "history.jsonl"
GUARD = ".lock.guard"
WORK = ".lock"
# A lock of this age may be that of a run that is about to give up.
YOUNG_S = 20.0
UNREADABLE = "unreadable"
_PAUSE_S = 0.2
_GUARD_S = 30.0


def read_holder(folder: str) -> dict[str, Any] | None:
    """Return who holds the lock; what cannot be read as JSON is held by the run `unreadable`."""
    path = os.path.join(folder, HOLDER)
    try:
        with open(path, encoding="utf-8") as source:
            found = json.load(source)
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if isinstance(found, dict) and isinstance(found.get("run"), str):
        return found
    stamp = os.stat(path).st_mtime
    return {"run": UNREADABLE, "taken": stamp, "seen": stamp}


def take(folder: str, run: dict[str, Any], replace: list[str], wait_s: float) -> dict[str, Any]:
    """Take the lock, or return who holds it."""
    deadline = time.monotonic() + wait_s
    while True:
        with host_lock(os.path.join(folder, GUARD), _GUARD_S):
            found, now = read_holder(folder), time.time()
            if found is None or found["run"] == run["run"] or found["run"] in replace:
                own = found is not None and found["run"] == run["run"]
                _write(folder, {**run, "taken": found["taken"] if own and found else now, "seen": now})
                return _told(folder, run["run"], replaced=None if own else found)
            waits = run["run"] < found["run"] and abs(now - _stamp(found, "taken")) < YOUNG_S
            if not waits or time.monotonic() > deadline:
                return _told(folder, run["run"])
        time.sleep(_PAUSE_S)


def renew(folder: str, run: dict[str, Any]) -> dict[str, Any]:
    """Show that the run is alive; its lock may have been broken, then it is not taken anew."""
    with host_lock(os.path.join(folder, GUARD), _GUARD_S):
        found = read_holder(folder)
        if found is not None and found["run"] == run["run"]:
            _write(folder, {**found, "seen": time.time()})
        return _told(folder, run["run"])


def release(folder: str, run: dict[str, Any], line: str, head: dict[str, Any]) -> dict[str, Any]:
    """Write the line, if the history is still the one that it continues, and give the lock back; both only if held."""
    if not os.path.isdir(folder):
        return _told(folder, run["run"])
    with host_lock(os.path.join(folder, GUARD), _GUARD_S):
        found = read_holder(folder)
        if found is None or found["run"] != run["run"]:
            return _told(folder, run["run"])
        stored = bool(line) and history_head(folder) == head
        if stored:
            _append(os.path.join(folder, HISTORY), line)
        os.unlink(os.path.join(folder, HOLDER))
        sync_folder(folder)
        return {**_told(folder, run["run"]), "stored": stored, "mine": True}


def history_lines(folder: str) -> list[str]:
    """Return the lines of the history, oldest first; one that a power loss cut short is a line too."""
    try:
        with open(os.path.join(folder, HISTORY), encoding="utf-8", errors="replace") as source:
            return [line for line in source.read().split("\n") if line]
    except FileNotFoundError:
        return []


def history_head(folder: str) -> dict[str, Any]:
    """Return how many lines the history has, and the sha256 of the last one."""
    lines = history_lines(folder)
    return {"count": len(lines), "digest": hashlib.sha256(lines[-1].encode()).hexdigest() if lines else ""}


def _append(path: str, line: str) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "ab") as out:
        size = os.fstat(out.fileno()).st_size
        torn = size > 0 and os.pread(out.fileno(), 1, size - 1) != b"\n"
        out.write((b"\n" if torn else b"") + line.encode() + b"\n")
        out.flush()
        os.fsync(out.fileno())


def _write(folder: str, holder: dict[str, Any]) -> None:
    write_durably(os.path.join(folder, HOLDER), json.dumps(holder, sort_keys=True).encode() + b"\n", 0o600)


def _stamp(holder: dict[str, Any], key: str) -> float:
    value = holder.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _told(folder: str, run: str, *, replaced: dict[str, Any] | None = None) -> dict[str, Any]:
    found, now = read_holder(folder), time.time()
    return {
        "mine": found is not None and found["run"] == run,
        "holder": found,
        "replaced": replaced,
        "age_s": max(0.0, now - _stamp(found, "taken")) if found else 0.0,
        "seen_s": max(0.0, now - _stamp(found, "seen")) if found else 0.0,
        "busy": _is_busy(folder),
        "head": history_head(folder),
        "stored": False,
    }


def _is_busy(folder: str) -> bool:
    """Return whether a module of ours holds the lock of its work (rackserve_host.host_lock)."""
    try:
        with open(os.path.join(folder, WORK), encoding="utf-8") as work:
            fcntl.flock(work, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["take", "renew", "release", "read"], "default": "take"},
            "folder": {"type": "path", "default": "/var/lib/rackserve"},
            "run": {"type": "dict", "default": {}},
            "replace": {"type": "list", "elements": "str", "default": []},
            "wait_s": {"type": "float", "default": YOUNG_S},
            "line": {"type": "str", "default": ""},
            "head": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    asked = module.params
    state, folder, run = asked["state"], asked["folder"], asked["run"]
    if state != "read" and not run.get("run"):
        module.fail_json(msg="the option `run` has no id: a lock is taken by the action run_lock, never alone")
    if module.check_mode and state != "read":
        module.exit_json(changed=False, **_told(folder, run["run"]))
    try:
        if state == "take":
            found = take(folder, run, asked["replace"], asked["wait_s"])
        elif state == "renew":
            found = renew(folder, run)
        elif state == "release":
            found = release(folder, run, asked["line"], asked["head"])
        else:
            found = {**_told(folder, ""), "lines": history_lines(folder)}
    except OSError as failed:
        module.fail_json(msg=f"cannot {state} the lock in {folder}: {failed}")
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
