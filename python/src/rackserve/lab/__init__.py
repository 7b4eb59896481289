"""The lab: real systemd hosts in containers, on a network that nothing leaves."""

from __future__ import annotations

from ._lab import HostStatus, LabStatus, down, lab_spec, leak_control, reboot, reset, snapshot, ssh_argv, status, up
from ._snapshot import Snapshot, load_snapshots
from ._snapshot import remove as remove_snapshot
from ._spec import HostSpec, LabSpec, parse_release
from ._state import lab_dir

__all__ = [
    "HostSpec",
    "HostStatus",
    "LabSpec",
    "LabStatus",
    "Snapshot",
    "down",
    "lab_dir",
    "lab_spec",
    "leak_control",
    "load_snapshots",
    "parse_release",
    "reboot",
    "remove_snapshot",
    "reset",
    "snapshot",
    "ssh_argv",
    "status",
    "up",
]
