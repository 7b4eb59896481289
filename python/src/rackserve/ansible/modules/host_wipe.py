#!/usr/bin/python
"""Remove what rackserve wrote on a host that leaves its site."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_wipe
short_description: Remove folders and files, and stop the units that read them
description:
  - Units are stopped and disabled first; one that the host does not have is passed over.
  - A path is left alone, and told in C(left), where removing it could take what is not this host's alone. That is a
    folder of the system, a folder on a network file system, or one below which another file system is mounted.
  - The content of a mount point is removed, and the mount stays. A link is removed with what it points to.
  - Removing is no erasure; blocks of the disk keep the data until they are written again.
options:
  paths: {description: What is removed., type: list, elements: str, required: true}
  units: {description: "Units that are stopped before.", type: list, elements: str, default: []}
author: rackserve
"""
EXAMPLES = r"""
- name: Remove the weights
  host_wipe: {paths: [/var/cache/huggingface/hub]}
"""
RETURN = r"""
removed: {description: Paths that were removed., type: list, returned: always}
bytes: {description: What the removed files held., type: int, returned: always}
stopped: {description: Units that were stopped., type: list, returned: always}
left: {description: "Paths that were left alone: path, why.", type: list, returned: always}
"""

import os
import re
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_host import host_lock, properties_in, run, tail

MOUNTS = "/proc/self/mounts"
# Not below these: a file system that other hosts see too.
_SHARED = ("nfs", "cifs", "smb", "ceph", "lustre", "gpfs", "beegfs", "9p", "fuse", "glusterfs", "afs", "ocfs2", "gfs2")
_SYSTEM = {"/", "/usr/local", "/usr/local/lib", "/etc/systemd", "/etc/systemd/system", "/var/lib/rackserve"}
_TOP = re.compile(
    r"/(bin|boot|dev|etc|home|lib\d*|media|mnt|opt|proc|root|run|sbin|srv|sys|tmp|usr|var|var/(cache|lib|log|tmp))"
)


def mounts_of(text: str) -> dict[str, str]:
    """Return the kind of file system by mount point, from /proc/self/mounts; a later mount hides an earlier one."""
    rows = [line.split() for line in text.splitlines()]
    return {re.sub(r"\\([0-7]{3})", lambda at: chr(int(at[1], 8)), row[1]): row[2] for row in rows if len(row) > 2}  # noqa: PLR2004


def reason_to_leave(path: str, mounts: dict[str, str]) -> str:
    """Return why a real path, absolute and without links, is not removed; empty where it may be."""
    if path in _SYSTEM or _TOP.fullmatch(path):
        return "it is a folder of the system"
    point = max((one for one in mounts if _is_in(path, one)), key=len, default="/")
    kind = mounts.get(point, "")
    if kind.startswith(_SHARED):
        return f"it is on {point}, a file system of the kind {kind}, which other hosts may use"
    below = sorted(one for one in mounts if one != path and _is_in(one, path))
    return f"{', '.join(below)} is mounted below it" if below else ""


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def size_of(path: str) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    if not os.path.isdir(path) or os.path.islink(path):
        return os.lstat(path).st_size
    walked = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(os.lstat(one).st_size for one in walked if os.path.lexists(one))


def wipe(path: str, *, is_mount: bool) -> None:
    """Remove a file or folder; of a mount point only what is in it."""
    if not os.path.isdir(path):
        os.unlink(path)
    elif not is_mount:
        shutil.rmtree(path)
    else:
        for name in os.listdir(path):
            wipe(os.path.join(path, name), is_mount=False)


def stop(units: list[str]) -> list[str]:
    """Stop and disable units that the host has; return them.

    Raises:
        OSError: one cannot be stopped.
    """
    stopped = []
    for unit in units:
        shown = run(["systemctl", "show", unit, "--property=LoadState,ActiveState,UnitFileState"])[1]
        state = properties_in(shown)
        if state.get("LoadState") != "loaded":
            continue
        if state.get("ActiveState") in {"inactive", "failed"} and state.get("UnitFileState") != "enabled":
            continue
        code, out, err = run(["systemctl", "disable", "--now", "--quiet", unit])
        if code != 0:
            raise OSError(f"{unit} cannot be stopped: {tail(err or out, 3)}")
        stopped.append(unit)
    return stopped


def act(params: dict[str, Any], mounts: dict[str, str], *, check: bool) -> dict[str, Any]:
    """Remove what may be removed; return what the module returns."""
    removed, left, total = [], [], 0
    stopped = [] if check else stop(params["units"])
    for path in params["paths"]:
        real = os.path.realpath(path)
        if not path.startswith("/") or not os.path.lexists(path):
            continue
        if why := reason_to_leave(real, mounts):
            left.append({"path": path, "why": why})
            continue
        is_mount = real in mounts
        if is_mount and not os.listdir(real):
            continue
        total += size_of(real) if os.path.lexists(real) else 0
        removed.append(path)
        if check:
            continue
        if os.path.lexists(real):
            wipe(real, is_mount=is_mount)
        if os.path.islink(path):
            os.unlink(path)
    return {"changed": bool(removed or stopped), "removed": removed, "left": left, "bytes": total, "stopped": stopped}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "required": True},
            "units": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        with open(MOUNTS, encoding="utf-8") as source:
            mounts = mounts_of(source.read())
        if module.check_mode:
            done = act(module.params, mounts, check=True)
        else:
            with host_lock():
                done = act(module.params, mounts, check=False)
    except OSError as failed:
        module.fail_json(msg=f"not all of it was removed: {failed}; mend that, and run it again")
    module.exit_json(**done)


if __name__ == "__main__":
    main()
