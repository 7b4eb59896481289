"""Who holds a lock: what a run writes about itself, and whether the process that wrote it still runs."""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import os
import secrets
import socket
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rackserve.history._sign import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping

_MACHINE_ID: Final = Path("/etc/machine-id")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD: Final = 19  # starttime is field 22 of /proc/PID/stat (proc(5)); the name, field 2, may hold spaces
_STATE_FIELD: Final = 0


class Liveness(Enum):
    """What is known about a holder's process."""

    RUNNING = "it runs on this controller"
    ENDED = "it ran on this controller and has ended"
    UNKNOWN = "it cannot be seen from here"


def new_run_id(playbook: str) -> str:
    """Return the id of a new run: its UTC start, the playbook's stem, four random digits; ids sort by start."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return f"{stamp}-{Path(playbook).stem}-{secrets.token_hex(2)}"


def this_process(run: str, playbook: str, inventory: str, key: str) -> dict[str, Any]:
    """Return this process as the holder of a lock.

    Args:
        run: the id of its run.
        playbook: its file's name, or the command.
        inventory: the base name of the inventory.
        key: fingerprint of this controller's key.
    """
    return {
        "run": run,
        "user": _user(),
        "host": socket.gethostname(),
        "machine": _text(_MACHINE_ID),
        "boot": _text(_BOOT_ID),
        "pidns": _pid_namespace(),
        "pid": os.getpid(),
        "started": _stat(os.getpid(), _START_FIELD),
        "command": playbook,
        "since": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "inventory": inventory,
        "key": key,
    }


def liveness(holder: Mapping[str, Any]) -> Liveness:
    """Return what this machine knows about the process of a holder.

    Process ids say something only within one boot and one PID namespace: containers share the other two. After
    another boot it is the same controller if machine id, host name and key are the same: cloned machines share the id.
    """
    here = this_process("", "", "", "")
    if not here["machine"] or not here["boot"] or any(holder.get(key) != here[key] for key in ("machine", "host")):
        return Liveness.UNKNOWN
    if holder.get("boot") != here["boot"]:
        return Liveness.ENDED if holder.get("key") == fingerprint() else Liveness.UNKNOWN
    pid = holder.get("pid")
    if holder.get("pidns") != here["pidns"] or not isinstance(pid, int):
        return Liveness.UNKNOWN
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return Liveness.ENDED
    except PermissionError:
        pass  # another user's
    started = _stat(pid, _START_FIELD)
    if started is None:
        return Liveness.RUNNING  # /proc hides other users' processes
    return Liveness.RUNNING if started == holder.get("started") and not _is_zombie(pid) else Liveness.ENDED


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    before = os.environ.get("SUDO_USER")
    return f"{before} (as {name})" if before and before != name else name


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii", errors="replace").strip()
    return ""


def _pid_namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _stat(pid: int, field: int) -> int | None:
    value = _stat_field(pid, field)
    return int(value) if value.isdigit() else None


def _is_zombie(pid: int) -> bool:
    return _stat_field(pid, _STATE_FIELD) in ("Z", "X")


def _stat_field(pid: int, field: int) -> str:
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[field] if len(fields) > field else ""
