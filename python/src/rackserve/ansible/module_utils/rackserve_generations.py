"""Generations of a host's instances: where they lie, which is live, and which units run them."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.module_utils.rackserve_host import properties_in, run

INSTANCES = "/etc/vllm/instances"
UNITS = "/etc/systemd/system"
LINKS = ("current", "candidate", "previous")
STARTED = "ActiveState,ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic"
_COMPLETE = "generation.json"


def instance_folder(name: str, root: str = INSTANCES) -> str:
    """Return the folder of an instance."""
    return os.path.join(root, name)


def instances(root: str = INSTANCES) -> list[str]:
    """Return the names of the instances that the host has."""
    try:
        return sorted(name for name in os.listdir(root) if os.path.isdir(os.path.join(root, name, "generations")))
    except FileNotFoundError:
        return []


def linked(name: str, link: str = "current", root: str = INSTANCES) -> str:
    """Return the digest that a link of an instance names; empty where there is none."""
    try:
        return os.path.basename(os.readlink(os.path.join(instance_folder(name, root), link)))
    except OSError:
        return ""


def generations(name: str, root: str = INSTANCES) -> dict[str, dict[str, Any]]:
    """Return the complete generations of an instance: digest to what its `generation.json` says."""
    folder, found = os.path.join(instance_folder(name, root), "generations"), {}
    for digest in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        try:
            with open(os.path.join(folder, digest, _COMPLETE), encoding="utf-8") as source:
                found[digest] = dict(json.load(source))
        except (OSError, ValueError):
            continue
    return found


def unit_of(name: str, digest: str) -> str:
    """Return the unit of a generation's engine."""
    return f"vllm@{name}.{digest}.service"


def live_unit(name: str, root: str = INSTANCES) -> str:
    """Return the unit of the live generation's engine; without one, a unit that does not exist."""
    return unit_of(name, linked(name, root=root) or "none")


def units_of(name: str, units: str = UNITS) -> list[str]:
    """Return the units of all generations of an instance that the host has files of."""
    start, end = f"vllm@{name}.", ".service"
    found = os.listdir(units) if os.path.isdir(units) else []
    return sorted(unit for unit in found if unit.startswith(start) and unit.endswith(end))


def listener_of(name: str) -> str:
    """Return the socket unit of an instance."""
    return f"vllm-proxy@{name}.socket"


def proxy_of(name: str) -> str:
    """Return the unit of the proxy behind an instance's socket."""
    return f"vllm-proxy@{name}.service"


def timer_of(name: str) -> str:
    """Return the timer of an instance's probe."""
    return f"vllm-probe@{name}.timer"


def started_at(show: str, now: float, monotonic: float) -> float | None:
    """Return the epoch seconds at which a unit was started, from `systemctl show`, or None if it runs not.

    A service counts from the start of its process, which may take minutes to be active; a socket has no process.
    """
    values = properties_in(show)
    text = values.get("ExecMainStartTimestampMonotonic") or values.get("ActiveEnterTimestampMonotonic")
    microseconds = int(text or 0)
    if values.get("ActiveState") not in {"active", "activating"} or microseconds == 0:
        return None
    return now - (monotonic - microseconds / 1e6)


def stale_units(read_by: dict[str, list[str]], now: float, monotonic: float) -> list[str]:
    """Return the running units that started before the files that they read last changed; links count themselves.

    Unlike a handler, this also sees a change whose play was interrupted before the restart.
    """
    stale = []
    for unit, files in read_by.items():
        show = run(["systemctl", "show", unit, f"--property={STARTED}"])[1]
        start = started_at(show, now, monotonic)
        written = [os.lstat(path).st_mtime for path in files if os.path.lexists(path)]
        if start is not None and any(mtime > start for mtime in written):
            stale.append(unit)
    return stale
