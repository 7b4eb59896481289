#!/usr/bin/python
"""Read what preflight compares with the inventory and the bundle."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_facts
short_description: Read the facts that preflight decides on
description: Reads user, Debian release, architecture, Pythons, free disk and logind. Never changes anything.
options:
  paths: {description: Folders whose filesystems' free bytes are wanted., type: list, elements: str, default: []}
  store: {description: Folder whose own size is wanted., type: str, required: true}
  releases: {description: Folder of the complete vLLM releases., type: str, required: true}
  pythons: {description: "Python versions to look for, such as 3.11.", type: list, elements: str, default: []}
  adapters: {description: Folders with LoRA adapters., type: list, elements: str, default: []}
  drivers: {description: Folder of the driver sets that the host keeps., type: str, default: /var/lib/rackserve/drivers}
author: rackserve
"""
EXAMPLES = r"""
- name: Read what preflight needs
  host_facts: {paths: [/opt/vllm], store: /var/lib/rackserve/bundle, releases: /opt/vllm/releases, pythons: ["3.11"]}
"""
RETURN = r"""
euid: {description: Effective user id., type: int, returned: always}
distribution: {description: ID of os-release., type: str, returned: always}
release: {description: VERSION_ID of os-release., type: str, returned: always}
architecture: {description: Machine as uname says., type: str, returned: always}
pythons: {description: Version to path; a missing one is left out., type: dict, returned: always}
free_bytes: {description: Path to free bytes., type: dict, returned: always}
stored_bytes: {description: Bytes of the files in the store., type: int, returned: always}
releases: {description: Ids of the complete releases., type: list, returned: always}
floor: {description: Newest version of each bundle that the host took in., type: dict, returned: always}
adapters: {description: "Folder to its adapter_config.json, null without one.", type: dict, returned: always}
drivers: {description: "Driver sets that the host keeps, as rackserve_driver wrote them.", type: list, returned: always}
vllm_uid: {description: "User id of the user vllm, null without one.", type: int, returned: always}
removes_ipc: {description: Whether logind removes a login user's IPC objects at logout., type: bool, returned: always}
"""

import glob
import json
import os
import platform
import pwd
import re
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.verify_bundle import BundleRejected, RollbackProtection


def os_release(text: str) -> dict[str, str]:
    """Read the KEY=value lines of os-release."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip().strip('"') for key, value in pairs}


def free_bytes(path: str) -> int:
    """Return the free bytes of the filesystem that holds a path, which need not exist yet."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def stored_bytes(store: str) -> int:
    """Return the bytes of all files in a folder, 0 when it is not there."""
    walked = ((folder, name) for folder, _, names in os.walk(store) for name in names)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, name in walked)


def complete_releases(folder: str) -> list[str]:
    """Return the ids of the releases whose installation was completed."""
    stamps = glob.glob(os.path.join(folder, "*", ".rackserve-complete"))
    return sorted(os.path.basename(os.path.dirname(stamp)) for stamp in stamps)


def adapter_config(folder: str) -> str | None:
    """Return the text of an adapter's configuration, None when there is none to read."""
    try:
        with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as source:
            return source.read()
    except (OSError, UnicodeDecodeError):
        return None


def kept_drivers(folder: str) -> list[dict[str, Any]]:
    """Return the driver sets that are kept in a folder; a half-kept one is none."""
    found = []
    for path in sorted(glob.glob(os.path.join(folder, "*", "set.json"))):
        try:
            with open(path, encoding="utf-8") as source:
                found.append(dict(json.load(source)))
        except (OSError, TypeError, ValueError):
            continue
    return found


def uid_of(user: str) -> int | None:
    """Return a user's id, None when there is no such user."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def removes_ipc(root: str = "/") -> bool:
    """Return whether logind removes the IPC objects of a login user at logout: unless RemoveIPC=no, where it runs.

    Of the main file and the drop-ins of all folders the last value counts, drop-ins by name; one in /etc hides one of
    the same name elsewhere (systemd: logind.conf(5)).
    """
    if not os.path.isdir(os.path.join(root, "run/systemd/seats")):
        return False  # logind makes it
    mains, dropins = [], {}
    for folder in ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd"):
        mains += glob.glob(os.path.join(root, folder, "logind.conf"))
        found = glob.glob(os.path.join(root, folder, "logind.conf.d", "*.conf"))
        dropins.update({os.path.basename(path): path for path in found})
    value = "yes"
    for path in [*mains[-1:], *(dropins[name] for name in sorted(dropins))]:
        try:
            with open(path, encoding="utf-8", errors="replace") as source:
                values = re.findall(r"^\s*RemoveIPC\s*=\s*(\S*)\s*$", source.read(), re.MULTILINE)
        except OSError:
            continue
        value = values[-1] if values else value
    return value.lower() not in ("no", "false", "off", "0", "n", "f")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "default": []},
            "store": {"type": "str", "required": True},
            "releases": {"type": "str", "required": True},
            "pythons": {"type": "list", "elements": "str", "default": []},
            "adapters": {"type": "list", "elements": "str", "default": []},
            "drivers": {"type": "str", "default": "/var/lib/rackserve/drivers"},
        },
        supports_check_mode=True,
    )
    with open("/etc/os-release", encoding="utf-8") as source:
        identity = os_release(source.read())
    found = {version: shutil.which(f"python{version}", path="/usr/bin") for version in module.params["pythons"]}
    floor: dict[str, Any] = {}
    try:
        floor = RollbackProtection(os.path.dirname(module.params["store"])).read()
    except BundleRejected as bad:
        module.fail_json(msg=str(bad))
    module.exit_json(
        changed=False,
        euid=os.geteuid(),
        distribution=identity.get("ID", "unknown"),
        release=identity.get("VERSION_ID", "unknown"),
        architecture=platform.machine(),
        pythons={version: path for version, path in found.items() if path},
        free_bytes={path: free_bytes(path) for path in module.params["paths"]},
        stored_bytes=stored_bytes(module.params["store"]),
        releases=complete_releases(module.params["releases"]),
        floor=floor,
        adapters={path: adapter_config(path) for path in module.params["adapters"]},
        drivers=kept_drivers(module.params["drivers"]),
        vllm_uid=uid_of("vllm"),
        removes_ipc=removes_ipc(),
    )


if __name__ == "__main__":
    main()
