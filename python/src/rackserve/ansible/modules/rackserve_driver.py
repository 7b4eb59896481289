#!/usr/bin/python
"""Install one NVIDIA driver set, hold it, and keep it and the one before on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rackserve_driver
short_description: Install, change or remove an NVIDIA driver set
description:
  - Installs exactly the versions of a driver set that the bundle carries or that an earlier run kept, up or down,
    builds its modules with DKMS, and holds driver, kernel and headers.
  - apt's plan is read before it is carried out. One that changes the kernel, or removes what is no part of a driver, is
    refused; afterwards the kernels on the host are compared with those before.
  - The set is kept beside the one before it, so that going back needs neither bundle nor network.
options:
  state:
    description: absent removes the driver and what came with it.
    type: str
    default: present
    choices: [present, absent]
  set: {description: "The set: version, flavour, path, names, packages, install, kernels.", type: dict, default: {}}
  kernels: {description: Kernels to build the modules for., type: list, elements: str, default: []}
  certificate:
    description: Certificate of the key that DKMS signs by; modules signed by another are built anew. Empty is none.
    type: str
    default: ""
  keep: {description: Where sets are kept., type: str, default: /var/lib/rackserve/drivers}
author: rackserve
"""
EXAMPLES = r"""
- name: Install the driver
  rackserve_driver:
    set: "{{ chosen }}"
    kernels: [6.1.0-56-amd64]
"""
RETURN = r"""
installed: {description: Packages that were installed or changed., type: list, returned: always}
built: {description: Kernels that modules were built for., type: list, returned: always}
held: {description: Packages that were put on hold., type: list, returned: always}
current: {description: Set that was the host's before., type: str, returned: always}
previous: {description: Version of the set that was kept to go back to., type: str, returned: always}
"""

import json
import os
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_driver import (
    is_driver,
    parse_dkms,
    parse_simulation,
    refusals,
    to_hold,
    to_install,
)
from ansible.module_utils.rackserve_driver_host import (
    DriverError,
    apt_environment,
    command,
    debian_repository,
    dkms_status,
    keep_set,
    kernels_of,
    packages,
    prune,
    record_of,
)
from ansible.module_utils.rackserve_host import host_lock, run, write_durably
from ansible.module_utils.verify_bundle import sha256_of


def install(chosen: dict[str, Any], *, check: bool) -> list[str]:
    """Bring the host's packages to a set's versions; return what changed."""
    present, carried = packages(), chosen["packages"]
    lesser = [name for name in chosen["names"] if name in present and name in carried]
    older = {name for name in lesser if run(["dpkg", "--compare-versions", present[name], "lt", carried[name]])[0] == 0}
    wanted: list[str] = to_install(chosen["names"], carried, present, chosen["version"], older)
    if not wanted or check:
        return wanted
    with tempfile.TemporaryDirectory(prefix="rackserve-driver-") as folder:
        env = apt_environment(folder, chosen["path"], *debian_repository())
        command(["dpkg", "--configure", "--pending"], env)
        command(["apt-get", "update"], env)
        ask = ["--yes", "--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages", *wanted]
        plan = parse_simulation(command(["apt-get", "install", "--simulate", *ask], env))
        if problems := refusals(*plan):
            raise DriverError(f"nothing was changed: to install driver {chosen['version']}, {'; '.join(problems)}")
        command(["apt-get", "install", *ask], env)
    before, after = kernels_of(present), kernels_of(packages())
    if moved := sorted(name for name in {*before, *after} if before.get(name) != after.get(name)):
        raise DriverError(f"installing driver {chosen['version']} changed the kernel: {', '.join(moved)}")
    return wanted


def build(chosen: dict[str, Any], kernels: list[str], *, again: bool, check: bool) -> list[str]:
    """Have DKMS build and sign the modules for kernels that lack them; return these kernels."""
    if check and shutil.which("dkms") is None:
        return kernels
    name: str | None
    there: set[str]
    name, there = parse_dkms(dkms_status(), chosen["version"])
    lacking = [kernel for kernel in kernels if again or kernel not in there]
    for kernel in lacking if not check else []:
        if name is None:
            raise DriverError(f"dkms does not know driver {chosen['version']}; look at `dkms status`")
        if again:  # to install by force builds nothing that is built
            command(["dkms", "build", "--force", f"{name}/{chosen['version']}", "-k", kernel])
        command(["dkms", "install", "--force", f"{name}/{chosen['version']}", "-k", kernel])
        if kernel not in parse_dkms(dkms_status(), chosen["version"])[1]:
            raise DriverError(f"dkms built no module for {kernel}; look at /var/lib/dkms/{name}/{chosen['version']}")
    return lacking


def signer_of(certificate: str) -> str:
    """Return the sha256 of the certificate that modules are signed under, an empty text for none of the site's."""
    return str(sha256_of(certificate)) if os.path.exists(certificate) else ""


def hold(chosen: dict[str, Any], kernels: list[str], *, check: bool) -> list[str]:
    """Hold the set with its kernels; return what was not held before."""
    held = set(command(["apt-mark", "showhold"]).split())
    new = [n for n in to_hold(chosen["packages"], packages(), chosen["version"], kernels) if n not in held]
    if new and not check:
        command(["apt-mark", "hold", *new])
    return new


def put(module: AnsibleModule) -> dict[str, Any]:
    """Install the set."""
    chosen, keep, check = module.params["set"], module.params["keep"], module.check_mode
    mine = f"{chosen['version']}-{chosen['flavour']}"
    record, before = record_of(keep), packages()
    kept = not check and keep_set(chosen, keep)
    done = install(chosen, check=check)
    signer = signer_of(module.params["certificate"])
    resign = not done and signer != record.get("signer", signer)
    built = build(chosen, module.params["kernels"], again=resign, check=check)
    held = hold(chosen, module.params["kernels"], check=check)
    current = record.get("current")
    previous = record.get("previous") if current in (None, mine) else current
    added = sorted({*record.get("added", []), *(name for name in packages() if name not in before)})
    on_hold = sorted({*record.get("held", []), *held})
    new = {"current": mine, "previous": previous, "added": added, "held": on_hold, "signer": signer}
    if new != record and not check:
        write_durably(os.path.join(keep, "record.json"), json.dumps(new, sort_keys=True).encode())
        prune(keep, {mine, str(previous)})
    return {
        "changed": bool(done or built or held or kept),
        "installed": done,
        "built": built,
        "held": held,
        "current": current or "",
        "previous": previous or "",
    }


def take(module: AnsibleModule) -> dict[str, Any]:
    """Remove the driver, and of what came with it all that nothing else needs."""
    keep = module.params["keep"]
    record = record_of(keep)
    present, added = packages(), set(record.get("added", []))
    driver = sorted(name for name in added if name in present and is_driver(name))
    if record and not module.check_mode:
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        held = set(record.get("held", [])).intersection(command(["apt-mark", "showhold"]).split())
        if held:
            command(["apt-mark", "unhold", *sorted(held)])
        if driver:
            command(["apt-get", "purge", "--yes", *driver], env)
        rest = sorted(added.intersection(packages()))
        if rest:
            command(["apt-mark", "auto", *rest])
        idle = parse_simulation(command(["apt-get", "autoremove", "--simulate"], env))[1]
        if gone := sorted(added.intersection(idle)):
            command(["apt-get", "purge", "--yes", *gone], env)
        shutil.rmtree(keep)
    return {"changed": bool(record), "installed": driver, "built": [], "held": [], "current": "", "previous": ""}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
            "set": {"type": "dict", "default": {}},
            "kernels": {"type": "list", "elements": "str", "default": []},
            "certificate": {"type": "str", "default": ""},
            "keep": {"type": "str", "default": "/var/lib/rackserve/drivers"},
        },
        supports_check_mode=True,
    )
    try:
        if module.check_mode:
            result = put(module) if module.params["state"] == "present" else take(module)
        else:
            with host_lock():
                result = put(module) if module.params["state"] == "present" else take(module)
    except (DriverError, OSError) as failed:
        module.fail_json(msg=str(failed))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
