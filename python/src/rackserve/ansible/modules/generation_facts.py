#!/usr/bin/python
"""Read which generations of its instances a host has, which are live, and whether their engines serve."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generation_facts
short_description: Read the generations of a host's instances
description:
  - Reads the links and folders below C(/etc/vllm/instances) and the state of the units. Never changes anything.
options:
  read_by: {description: "Files by the unit that reads them, to find units with older ones.", type: dict, default: {}}
author: rackserve
"""
EXAMPLES = r"""
- name: Read the generations
  generation_facts:
"""
RETURN = r"""
instances:
  description: >-
    By name: `live`, `previous` and `candidate` (digests, empty for none), `active` (whether the live engine's unit
    is), `seconds` (from the start of its engine to its first token; 0 unknown), `generation` and `before` (what
    generation.json of the live one and of the one before says), `complete` (digests), `others` (units of other
    generations that run), `memory` (bytes that the live engine's unit uses), `listens` (address and port of its
    listener).
  type: dict
  returned: always
stale: {description: Running units that started before their files last changed., type: list, returned: always}
available: {description: "Bytes of host memory that are available.", type: int, returned: always}
gpus: {description: "GPUs that nvidia-smi lists: index, uuid, free and total bytes.", type: list, returned: always}
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_generations import (
    LINKS,
    STARTED,
    generations,
    instances,
    linked,
    listener_of,
    stale_units,
    unit_of,
)
from ansible.module_utils.rackserve_host import properties_in, run

_PROPERTIES = f"{STARTED},MemoryCurrent"


def state_of(name: str, shown: str, running: list[str]) -> dict[str, Any]:
    """Return the state of an instance.

    Args:
        name: the instance's.
        shown: what `systemctl show` says of its live engine's unit.
        running: units of engines that run on the host.
    """
    values = properties_in(shown)
    began, ready, memory = (values.get(key, "") for key in _PROPERTIES.split(",")[1:])
    active, complete = values.get("ActiveState") == "active", generations(name)
    links = {"live" if link == "current" else link: linked(name, link) for link in LINKS}
    known = active and began.isdigit() and ready.isdigit()
    return {
        **links,
        "active": active,
        "seconds": round((int(ready) - int(began)) / 1e6, 1) if known else 0.0,
        "generation": complete.get(links["live"], {}),
        "before": complete.get(links["previous"], {}),
        "complete": list(complete),
        "others": [unit for unit in running if engine_of(unit) == name and unit != unit_of(name, links["live"])],
        "memory": int(memory) if active and memory.isdigit() else 0,
    }


def address_of(shown: str) -> str:
    """Return address and port of a listener, from `systemctl show`: Listen=10.0.0.5:8000 (Stream)."""
    return shown.partition("=")[2].partition(" (")[0].strip()


def engine_of(unit: str) -> str:
    """Return the instance of an engine's unit, vllm@NAME.DIGEST.service."""
    return unit.partition("@")[2].rpartition(".service")[0].rpartition(".")[0]


def available_memory(meminfo: str) -> int:
    """Return MemAvailable in bytes, from /proc/meminfo; 0 unknown."""
    return next((int(row.split()[1]) << 10 for row in meminfo.splitlines() if row.startswith("MemAvailable:")), 0)


def gpus_of(listed: str) -> list[dict[str, Any]]:
    """Return the GPUs that `nvidia-smi` lists as `index, uuid, free MiB, total MiB`."""
    found = []
    for row in listed.splitlines():
        index, _, rest = row.partition(", ")
        uuid, _, memory = rest.partition(", ")
        free, _, total = memory.partition(", ")
        if free.strip().isdigit() and total.strip().isdigit():
            found.append({"index": index, "uuid": uuid, "free": int(free) << 20, "total": int(total) << 20})
    return found


def list_gpus() -> str:
    """Return what `nvidia-smi` lists; empty on a host without it."""
    try:
        query = ["nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits"]
        return str(run(query)[1])
    except OSError:
        return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"read_by": {"type": "dict", "default": {}}}, supports_check_mode=True)
    listed = run(["systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating", "vllm@*.service"])[
        1
    ]
    running, found = [row.split()[0] for row in listed.splitlines() if row.strip()], {}
    for name in instances():
        live = linked(name)
        shown = run(["systemctl", "show", unit_of(name, live), f"--property={_PROPERTIES}"])[1] if live else ""
        found[name] = state_of(name, shown, running)
        found[name]["listens"] = address_of(run(["systemctl", "show", listener_of(name), "--property=Listen"])[1])
    with open("/proc/meminfo", encoding="utf-8") as source:
        available = available_memory(source.read())
    stale = stale_units(module.params["read_by"], time.time(), time.clock_gettime(time.CLOCK_MONOTONIC))
    module.exit_json(changed=False, instances=found, stale=stale, available=available, gpus=gpus_of(list_gpus()))


if __name__ == "__main__":
    main()
