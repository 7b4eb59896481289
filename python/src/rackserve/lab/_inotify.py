"""The kernel's limit of inotify instances of a user: all hosts share root's, and one that gets none does not boot."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from rackserve.errors import LabError

_PROC: Final = Path("/proc")
_KEY: Final = "fs.inotify.max_user_instances"
# A Debian 12 host at rest has 7, measured: PID 1 has 5, logind and agetty one each. The rest is for what it will run.
_PER_HOST: Final = 12


def check_room(hosts: int) -> None:
    """Refuse to boot so many hosts where root's inotify instances would not suffice.

    Raises:
        LabError: with the limit, what is needed, and the command that sets it.
    """
    limit = int((_PROC / "sys" / _KEY.replace(".", "/")).read_text())
    used = _in_use()
    needed = used + hosts * _PER_HOST
    if hosts and needed > limit:
        raise LabError(
            f"{_KEY} is {limit}; to boot {hosts} lab hosts it must be {needed} ({used} in use, {_PER_HOST} a host): "
            f"sysctl -w {_KEY}={needed}"
        )


def _in_use() -> int:
    found = 0
    for process in _PROC.iterdir():
        with contextlib.suppress(OSError):  # not a process, or it ended while we looked
            if process.stat().st_uid == os.geteuid():
                found += [str(fd.readlink()) for fd in (process / "fd").iterdir()].count("anon_inode:inotify")
    return found
