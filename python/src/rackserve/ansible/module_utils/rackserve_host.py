"""What our modules share on a host. Standard library only, Python 3.9 and newer."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = "/var/lib/rackserve/.lock"


def write_durably(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that it is either the old or the new one, even after a power loss."""
    draft = f"{path}.new"
    with open(draft, "wb") as target:
        target.write(data)
        os.fchmod(target.fileno(), mode)
        target.flush()
        os.fsync(target.fileno())
    os.replace(draft, path)
    sync_folder(os.path.dirname(path))


def switch_link(link: str, target: str) -> bool:
    """Point a symbolic link at a target by one atomic rename; return whether it pointed elsewhere before."""
    if os.path.islink(link) and os.readlink(link) == target:
        return False
    draft = f"{link}.new"
    if os.path.lexists(draft):
        os.unlink(draft)
    os.symlink(target, draft)
    os.replace(draft, link)
    sync_folder(os.path.dirname(link))
    return True


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def host_lock(path: str = LOCK, wait_s: float = 900.0) -> Iterator[None]:
    """Let one process at a time change what rackserve keeps on a host.

    A controller that was killed leaves its module running on the host; the next run waits here until that has ended.

    Raises:
        OSError: when the other one has not ended in time; the message names it.
    """
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as lock:
        started = time.monotonic()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as held:
                if time.monotonic() - started > wait_s:
                    lock.seek(0)
                    holder = lock.read().strip() or "unknown"
                    text = f"process {holder} of an earlier run is still at work on this host after {wait_s:.0f} s"
                    raise OSError(f"{text}; look at it, end it, and run the play again") from held
                time.sleep(0.5)
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def run(argv: list[str], env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run a program and return its exit code, standard output and standard error."""
    done = subprocess.run(argv, env=env, capture_output=True, text=True, errors="replace", check=False)
    return done.returncode, done.stdout, done.stderr


def properties_in(shown: str) -> dict[str, str]:
    """Return the properties of a unit, from what `systemctl show` prints of it."""
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def tail(text: str, lines: int = 20) -> str:
    """Return the last lines of a program's output."""
    return "\n".join(text.strip().splitlines()[-lines:])
