"""The lab: real systemd hosts in containers, on a network that nothing leaves."""

from __future__ import annotations

from ._lab import HostStatus, LabStatus, down, lab_spec, leak_control, reboot, reset, ssh_argv, status, up
from ._spec import HostSpec, LabSpec, parse_release
from ._state import lab_dir

__all__ = [
    "HostSpec",
    "HostStatus",
    "LabSpec",
    "LabStatus",
    "down",
    "lab_dir",
    "lab_spec",
    "leak_control",
    "parse_release",
    "reboot",
    "reset",
    "ssh_argv",
    "status",
    "up",
]
