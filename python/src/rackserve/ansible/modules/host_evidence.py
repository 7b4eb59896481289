# Apache License 2.0 (see LICENSE)
"""Ansible module: brings what `rackserve doctor` judges. Python 3.9 or newer, standard library only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_evidence
short_description: Bring alerts, journals, disks and the edge's last answers of a host
description:
  - Reads and never changes; check mode makes no difference. What cannot be read is left empty.
options:
  instances:
    description: Names of the host's instances of vLLM.
    type: list
    elements: str
    default: []
  prometheus:
    description: Where Prometheus listens on this host; empty on a host without it.
    type: str
    default: ""
  services:
    description: Units that have to run on this host.
    type: list
    elements: str
    default: []
  rotation:
    description: File with an edge's rotation state.
    type: str
    required: true
  mounts:
    description: Directories whose filesystems are measured.
    type: list
    elements: str
    default: []
author: The rackserve authors
"""

EXAMPLES = r"""
- name: Bring the evidence
  host_evidence:
    instances: [chat]
    rotation: /var/lib/rackserve/edge/rotation.json
"""

RETURN = r"""
evidence:
  description: >-
    alerts (null where Prometheus does not answer), free, answers of the last ten minutes (count and minutes by status),
    services, drained (marks of instances that an edge has out of rotation), and units with instance, active, result,
    restarts, journal (lines), begins (lines with which an invocation begins), probe, probe_detail and drained.
  returned: always
  type: dict
"""

import collections
import contextlib
import datetime as dt
import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_generations import live_unit
from ansible.module_utils.rackserve_host import properties_in
from ansible.module_utils.rackserve_rotation import deciding, parse_marks
from ansible.module_utils.rackserve_soak import alerts_of

PROBE = "/run/rackserve/probe/{}.json"
DRAINED = "/var/lib/rackserve/drained/{}"
ACCESS_LOG = Path("/var/log/nginx/access.log")
# Eight workers print a traceback each before the engine prints its own.
JOURNAL = (
    "--lines=2000",
    "--output=json",
    "--all",
    "--output-fields=MESSAGE,INVOCATION_ID,_SYSTEMD_INVOCATION_ID,_PID",
    "--no-pager",
)
LINE_CHARACTERS = 1000
TAIL_BYTES = 1 << 18
RECENT = dt.timedelta(minutes=10)
TIMEOUT_S = 20


def run(*words: str) -> str:
    """Return what a program prints, empty where it is not there or takes too long."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False).stdout
    return ""


def journal_of(exported: str) -> tuple[list[str], list[int]]:
    """Return a unit's lines, and the places of those with which an invocation of the unit begins.

    Args:
        exported: output of `journalctl --output=json`, one entry a line.
    """
    lines: list[str] = []
    begins: list[int] = []
    last = ""
    for text in exported.splitlines():
        entry: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            entry = dict(json.loads(text))
        message = entry.get("MESSAGE")
        if isinstance(message, list):  # bytes that are no UTF-8
            message = bytes(message).decode(errors="replace")
        # The engine's own lines have the first field, systemd's about the unit the second.
        invocation = str(entry.get("_SYSTEMD_INVOCATION_ID") or "")
        if entry.get("_PID") == "1" or entry.get("INVOCATION_ID"):
            invocation = str(entry.get("INVOCATION_ID") or "")
        if invocation and invocation != last:
            begins.append(len(lines))
            last = invocation
        lines += [line[:LINE_CHARACTERS] for line in str(message or "").splitlines() or [""]]
    return lines, begins


def unit_of(instance: str, shown: str, journal: str, record: str, *, drained: bool) -> dict[str, Any]:
    """Return what is known of one instance.

    Args:
        instance: its name.
        shown: output of `systemctl show` of its unit.
        journal: the last entries of its engine, as `journalctl --output=json` has them.
        record: what its probe keeps.
        drained: whether an operator keeps it closed.
    """
    properties = properties_in(shown)
    probe: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        probe = json.loads(record) if record else {}
    restarts = properties.get("NRestarts", "0")
    lines, begins = journal_of(journal)
    return {
        "instance": instance,
        "active": properties.get("ActiveState", "unknown"),
        "result": properties.get("Result", "unknown"),
        "restarts": int(restarts) if restarts.isdigit() else 0,
        "journal": lines,
        "begins": begins,
        "probe": str(probe.get("state", "unknown")),
        "probe_detail": str(probe.get("detail", "")),
        "drained": drained,
    }


def answers_of(log: str, now: dt.datetime) -> dict[str, dict[str, int]]:
    """Return how often, and in how many minutes, each status stands in nginx's access log of the last ten minutes."""
    counts: collections.Counter[str] = collections.Counter()
    minutes: dict[str, set[str]] = collections.defaultdict(set)
    for line in log.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            read = json.loads(line)
            status, time = str(int(read["status"])), str(read["time"])
            if now - dt.datetime.fromisoformat(time) < RECENT:
                counts[status] += 1
                minutes[status].add(time[:16])
    return {status: {"count": count, "minutes": len(minutes[status])} for status, count in counts.items()}


def services_of(units: list[str]) -> dict[str, str]:
    """Return systemd's ActiveState of units."""
    states = run("systemctl", "is-active", *units).split() if units else []
    return dict(zip(units, states))  # noqa: B905 - Python 3.9 has no strict


def drained_of(state: Path) -> list[dict[str, Any]]:
    """Return the marks of the instances that this edge keeps out of rotation: label, by, run, weight, since."""
    with contextlib.suppress(OSError, ValueError):
        marks = deciding(parse_marks(state.read_text(encoding="utf-8"), str(state)))
        return [marks[label] for label in sorted(marks) if marks[label]["weight"] == 0]
    return []


def free_of(mounts: list[str]) -> dict[str, float]:
    """Return the free share of the filesystems that some folders are on, each once."""
    found: dict[int, tuple[str, float]] = {}
    for mount in mounts:
        with contextlib.suppress(OSError):
            usage, device = os.statvfs(mount), os.stat(mount).st_dev
            if usage.f_blocks:
                found.setdefault(device, (mount, usage.f_bavail / usage.f_blocks))
    return dict(found.values())


def tail(path: Path) -> str:
    """Return the end of a file, empty where there is none."""
    with contextlib.suppress(OSError), path.open("rb") as source:
        source.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return source.read().decode(errors="replace")
    return ""


def ask(url: str) -> str:
    """Return what an address answers, empty where it does not."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - Prometheus
        return str(answer.read().decode(errors="replace"))
    return ""


def _instance(name: str) -> dict[str, Any]:
    unit = live_unit(name)
    return unit_of(
        name,
        run("systemctl", "show", unit, "--property=ActiveState,Result,NRestarts"),
        run("journalctl", f"--unit={unit}", *JOURNAL),
        tail(Path(PROBE.format(name))),
        drained=Path(DRAINED.format(name)).exists(),
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "str", "default": []},
            "prometheus": {"type": "str", "default": ""},
            "services": {"type": "list", "elements": "str", "default": []},
            "rotation": {"type": "str", "required": True},
            "mounts": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    prometheus = module.params["prometheus"]
    evidence = {
        "alerts": alerts_of(ask(f"{prometheus}/api/v1/alerts")) if prometheus else [],
        "units": [_instance(name) for name in module.params["instances"]],
        "free": free_of(module.params["mounts"]),
        "answers": answers_of(tail(ACCESS_LOG), dt.datetime.now(dt.timezone.utc)),  # noqa: UP017
        "services": services_of(module.params["services"]),
        "drained": drained_of(Path(module.params["rotation"])),
    }
    module.exit_json(changed=False, evidence=evidence)


if __name__ == "__main__":
    main()
