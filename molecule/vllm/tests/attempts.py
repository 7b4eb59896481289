"""Tries what a sandbox must refuse, and prints which attempts succeeded; runs on a host, with its own Python.

    attempts.py RELEASES NODE PROGRAM ADDRESS PID

RELEASES is the folder of the releases, NODE a device that all may open, PROGRAM one that runs as another user than its
caller, ADDRESS a second host with an SSH server, PID a process of another user.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_NEWUSER = 0x10000000
MNT_DETACH = 2
PTRACE_ATTACH = 16
FINIT_MODULE = 313  # x86_64
LIBC = ctypes.CDLL(None, use_errno=True)


def must(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def write(folder: str) -> None:
    path = Path(folder, "rackserve-attempt")
    path.write_text("")
    path.unlink()


def mount() -> None:
    with tempfile.TemporaryDirectory() as folder:
        must(LIBC.mount(b"none", folder.encode(), b"tmpfs", 0, None))
        LIBC.umount2(folder.encode(), MNT_DETACH)


def in_child(action: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 - a child must not return
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        raise PermissionError("the child was refused")


def trace() -> None:
    child = subprocess.Popen(["/bin/sleep", "10"])
    try:
        must(LIBC.ptrace(PTRACE_ATTACH, child.pid, None, None))
    finally:
        child.kill()


def become_another(program: str) -> None:
    user = subprocess.run([program, "-u"], capture_output=True, text=True, check=True).stdout
    if int(user) == os.getuid():
        raise PermissionError("the program ran as its caller")


def load_module() -> None:
    with tempfile.TemporaryFile() as empty:
        must(LIBC.syscall(FINIT_MODULE, empty.fileno(), b"", 0))


def attempts(releases: str, node: str, program: str, address: str, pid: str) -> dict[str, Callable[[], object]]:
    return {
        "write to /usr": lambda: write("/usr"),
        "write to /etc": lambda: write("/etc"),
        "write to another release": lambda: write(releases),
        "read /home": lambda: list(Path("/home").iterdir()),
        "read /root": lambda: list(Path("/root").iterdir()),
        "mount": mount,
        "make a user namespace": lambda: in_child(lambda: must(LIBC.unshare(CLONE_NEWUSER))),
        "trace a process": trace,
        "become another user by a setuid program": lambda: become_another(program),
        "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close(),
        "load a kernel module": load_module,
        "read /dev/mem": lambda: os.close(os.open("/dev/mem", os.O_RDONLY)),
        "open a device of another instance": lambda: os.close(os.open(node, os.O_RDWR)),
        "reach another host": lambda: socket.create_connection((address, 22), 3).close(),
        "signal another user's process": lambda: os.kill(int(pid), 0),
    }


def succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


if __name__ == "__main__":
    json.dump({name: succeeds(attempt) for name, attempt in attempts(*sys.argv[1:]).items()}, sys.stdout)
