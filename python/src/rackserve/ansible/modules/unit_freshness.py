#!/usr/bin/python
"""Find the running units that started before their files were last changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_freshness
short_description: Find units that run with old files
description:
  - Compares when each unit was last started with the modification time of the files it reads. Unlike a handler, it
    also sees a change whose play was interrupted before the restart. Never changes anything.
options:
  units: {description: "Unit name to the list of its files; links count themselves.", type: dict, required: true}
author: rackserve
"""
EXAMPLES = r"""
- name: Find stale units
  unit_freshness: {units: {"vllm@a.service": [/etc/vllm/instances/a.yaml]}}
"""
RETURN = r"""
stale: {description: Units that run with old files., type: list, returned: always}
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_host import run

_PROPERTIES = "ActiveState,ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic"


def started_at(show: str, now: float, monotonic: float) -> float | None:
    """Return the epoch seconds at which a unit was started, from `systemctl show`, or None if it runs not.

    A service counts from the start of its process, which may take minutes to be active; a socket has no process.
    """
    values = dict(line.split("=", 1) for line in show.splitlines() if "=" in line)
    text = values.get("ExecMainStartTimestampMonotonic") or values.get("ActiveEnterTimestampMonotonic")
    microseconds = int(text or 0)
    if values.get("ActiveState") not in {"active", "activating"} or microseconds == 0:
        return None
    return now - (monotonic - microseconds / 1e6)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"units": {"type": "dict", "required": True}}, supports_check_mode=True)
    stale = []
    for unit, files in module.params["units"].items():
        show = run(["systemctl", "show", unit, f"--property={_PROPERTIES}"])[1]
        start = started_at(show, time.time(), time.clock_gettime(time.CLOCK_MONOTONIC))
        written = [os.lstat(path).st_mtime for path in files if os.path.lexists(path)]
        if start is not None and any(mtime > start for mtime in written):
            stale.append(unit)
    module.exit_json(changed=False, stale=stale)


if __name__ == "__main__":
    main()
