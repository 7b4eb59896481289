"""The lab's own processes, known by the uuid that only they carry: nothing else is ever signalled."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rackserve.errors import LabError

SUPERVISOR_MODULE: Final = "rackserve.lab._supervisor"
_PROC: Final = Path("/proc")
_GRACE_S: Final = 3.0  # for nspawn to tidy up after its guest
_LIMIT_S: Final = 20.0
_STEP_S: Final = 0.05


@dataclass(frozen=True)
class Found:
    """Process ids of one host: its supervisors, the nspawn processes, and the guest's PID 1 as seen from here."""

    supervisors: tuple[int, ...]
    containers: tuple[int, ...]
    leader: int | None

    @property
    def any(self) -> bool:
        """Whether anything of the host is left."""
        return bool(self.supervisors or self.containers or self.leader)


def find(uuid: str) -> Found:
    """Look through /proc for a host's processes; those of a guest survive the death of its nspawn."""
    supervisors: list[int] = []
    containers: list[int] = []
    leader = None
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended while we looked
            pid, words = int(entry.name), _words(entry / "cmdline")
            if is_supervisor(words, uuid):
                supervisors.append(pid)
            elif is_container(words, uuid):
                containers.append(pid)
            elif is_first(entry) and f"container_uuid={uuid}" in _words(entry / "environ"):
                leader = pid
    return Found(tuple(supervisors), tuple(containers), leader)


def is_supervisor(words: list[str], uuid: str) -> bool:
    """Return whether a command line is that of a host's supervisor."""
    return uuid in words and SUPERVISOR_MODULE in words and Path(words[0]).name.startswith("python")


def is_container(words: list[str], uuid: str) -> bool:
    """Return whether a command line is that of a host's nspawn."""
    return f"--uuid={uuid}" in words and Path(words[0]).name in ("systemd-nspawn", "nsenter", "setsid", "systemd-run")


def is_first(process: Path) -> bool:
    """Return whether a process is PID 1 of a pid namespace below ours."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return len(numbers) > 1 and numbers[-1] == "1"
    return False


def _words(path: Path) -> list[str]:
    return path.read_bytes().decode(errors="replace").split("\0")


def own_cgroup(uuid: str) -> Path | None:
    """Return the control group of a host where no service manager gives it one; None under systemd, whose scope it is.

    Without one of their own, all guests would share the group that nspawn makes below the caller's.
    """
    if Path("/run/systemd/system").is_dir():
        return None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(fields.split()[4]) / f"rackserve-lab-{uuid}"
    return None


def stop(uuid: str) -> None:
    """Kill a host as a power cut would: supervisor first, so that it starts nothing; then the guest; then nspawn."""
    started = time.monotonic()
    while (found := find(uuid)).any:
        waited = time.monotonic() - started
        for pid in found.supervisors:
            _kill(pid, uuid)
        if found.leader is not None:
            _kill(found.leader, uuid)
        elif not found.supervisors and waited > _GRACE_S:
            for pid in found.containers:
                _kill(pid, uuid)
        if waited > _LIMIT_S:
            raise LabError(f"processes {found} of a lab host do not end; look at them with ps, then run it again")
        time.sleep(_STEP_S)


def send(pid: int, uuid: str, number: int) -> bool:
    """Signal a process only if it is still the host's own: the id may have gone to another one since."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        found = find(uuid)
        if pid not in (*found.supervisors, *found.containers, found.leader):
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        return True
    finally:
        os.close(handle)


def _kill(pid: int, uuid: str) -> None:
    send(pid, uuid, signal.SIGKILL)
