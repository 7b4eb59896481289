"""Runs one host: starts its nspawn, starts it again when the guest reboots, ends when it powers off.

Started detached as `python -m rackserve.lab._supervisor UUID LAB HOST`; the uuid is what it is found by.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import Final

from rackserve.errors import LabError

from ._network import netns_path
from ._processes import find, own_cgroup, stop
from ._state import HostRecord, RunRecord, load, save_run

_REBOOT: Final = 133  # what nspawn ends with, under --keep-unit, when the guest asks for a reboot
_BOOT_LIMIT_S: Final = 300.0
_STEP_S: Final = 0.05
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",  # a role may set net.* for its host: they are the namespace's own
}


def nspawn_argv(host: HostRecord) -> list[str]:
    """Return the command line of a host.

    nsenter is not redundant: nspawn mounts /sys before it enters the namespace of the option, and would show the
    controller's interfaces. CAP_BPF and CAP_PERFMON let the guest's systemd enforce IPAddressDeny= and DeviceAllow=.
    """
    path = netns_path(host)
    return [
        *("nsenter", f"--net={path}"),
        *("systemd-nspawn", f"--directory={host.folder / 'root'}", f"--machine={host.machine}", f"--uuid={host.uuid}"),
        *("--boot", "--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off"),
        f"--network-namespace-path={path}",
        *("--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON", "--system-call-filter=bpf"),
    ]


def supervise(host: HostRecord) -> int:
    """Keep a host running until it is powered off; return what nspawn ended with."""
    boots = 0
    while True:
        boots += 1
        save_run(host, RunRecord(boots))
        started = time.monotonic()
        with (host.folder / "console.log").open("ab") as console:
            child = subprocess.Popen(
                nspawn_argv(host), env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        while child.poll() is None and time.monotonic() - started < _BOOT_LIMIT_S:
            if find(host.uuid).leader is not None and answers_ssh(host.address):
                save_run(host, RunRecord(boots, boot_s=round(time.monotonic() - started, 2)))
                break
            time.sleep(_STEP_S)
        code = child.wait()
        if code != _REBOOT:
            stop(host.uuid)  # a killed nspawn leaves its guest running
            save_run(host, RunRecord(boots, ended=code))
            return code


def answers_ssh(address: str) -> bool:
    """Return whether an SSH server greets at an address."""
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def main() -> int:
    """Enter the host's control group and supervise it."""
    uuid, lab, name = sys.argv[1:]
    record = load(lab)
    if record is None or record.host(name).uuid != uuid:
        raise LabError(f"lab {lab} has no host {name} with uuid {uuid}")
    group = own_cgroup(uuid)
    if group is not None:
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(os.getpid()))
    return supervise(record.host(name))


if __name__ == "__main__":
    sys.exit(main())
