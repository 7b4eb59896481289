#!/usr/bin/python
"""Install Debian packages from the bundle's repository and from nowhere else."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rackserve_packages
short_description: Install Debian packages from the bundle
description:
  - Installs the versions that the bundle's repository carries; an installed newer version is kept.
  - apt is run with a configuration of ours, so the host's own sources and lists are neither read nor written. Works
    before python3-apt is there, and in check mode before the bundle is.
  - No package starts, stops, restarts or reloads nginx or nftables.service, so an upgrade ends no stream and flushes no
    table of the firewall; the role nginx does what is left to do, see C(edge_upgrade). A file of a package that was
    changed on the host stays as it is.
options:
  names: {description: Names of packages., type: list, elements: str, required: true}
  config: {description: "apt's configuration file.", type: str, default: /etc/rackserve/apt.conf}
author: rackserve
"""
EXAMPLES = r"""
- name: Install nginx
  rackserve_packages: {names: [nginx]}
"""
RETURN = r"""
installed: {description: Packages that were installed or changed., type: list, returned: always}
"""

import os
import re
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_host import host_lock, run, tail, write_durably

# The programs by which a package's scripts act on a service (Debian Policy 9.3.3).
_ASKED = ("deb-systemd-invoke", "invoke-rc.d")
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_GUARDS = "/var/lib/rackserve/apt/guards"
_GUARD = """#!/bin/sh
# Written by rackserve_packages, for the packages that it installs: the role nginx starts and upgrades nginx, and a stop
# of nftables.service flushes every table.
for word; do
    case $word in nginx | nginx.service | nftables | nftables.service) exit 0 ;; esac
done
exec {program} "$@"
"""
# What was changed on the host stays; without a terminal dpkg would end at its question.
_KEEP = ("--force-confdef", "--force-confold")


def write_guards(folder: str) -> str:
    """Write programs that leave nginx and nftables alone and pass all else on; return the PATH that finds them first.

    Nothing of the host is changed for it, such as `policy-rc.d`, that a run which is killed would leave changed.
    """
    os.makedirs(folder, mode=0o755, exist_ok=True)
    for name in _ASKED:
        program = shutil.which(name, path=_SYSTEM_PATH)
        if program:
            write_durably(os.path.join(folder, name), _GUARD.format(program=program).encode(), 0o755)
    return f"{folder}:{_SYSTEM_PATH}"


def parse_installed(text: str) -> dict[str, str]:
    """Read `dpkg-query` lines of name, version and state; a package that is not fully installed is left out."""
    rows = (line.split("\t") for line in text.splitlines())
    return {name: version for name, version, state in rows if state == "installed"}


def parse_index(text: str) -> dict[str, str]:
    """Read name -> highest version of a repository's `Packages`."""
    found: dict[str, str] = {}
    for name, version in re.findall(r"^Package: (\S+)$.*?^Version: (\S+)$", text, re.MULTILINE | re.DOTALL):
        if is_older(found.get(name), version):
            found[name] = version
    return found


def repository_of(config: str) -> str:
    """Return the folder of the repository that an apt configuration names."""
    with open(config, encoding="utf-8") as source:
        sources = re.search(r'^Dir::Etc::sourcelist "(?P<path>[^"]+)";$', source.read(), re.MULTILINE)
    with open(sources["path"] if sources else os.devnull, encoding="utf-8") as source:
        found = re.search(r"file:(?P<path>/\S+)", source.read())
    return found["path"] if found else ""


def is_older(present: str | None, carried: str) -> bool:
    """Return whether a package is absent, or older than the bundle's; a newer one, a security update, is kept."""
    return present is None or run(["dpkg", "--compare-versions", present, "lt", carried])[0] == 0


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "config": {"type": "str", "default": "/etc/rackserve/apt.conf"},
        },
        supports_check_mode=True,
    )
    names, config = module.params["names"], module.params["config"]
    query = ["dpkg-query", "--show", "--showformat", "${Package}\\t${Version}\\t${db:Status-Status}\\n"]
    present = parse_installed(run(query)[1])
    if not os.path.exists(config):
        if module.check_mode:
            absent = [name for name in names if name not in present]
            module.exit_json(changed=bool(absent), installed=absent)
        module.fail_json(msg=f"{config} is missing; run the role `bundle` on this host first")
    with open(os.path.join(repository_of(config), "Packages"), encoding="utf-8") as source:
        carried = parse_index(source.read())
    unknown = [name for name in names if name not in carried]
    if unknown and module.check_mode:  # a newer bundle would be placed before
        module.exit_json(changed=True, installed=unknown)
    if unknown:
        module.fail_json(msg=f"not in the bundle: {', '.join(unknown)}; build it again with the roles that need them")
    wanted = [f"{name}={carried[name]}" for name in names if is_older(present.get(name), carried[name])]
    if wanted and not module.check_mode:
        env = {**os.environ, "APT_CONFIG": config, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        with host_lock():
            env["PATH"] = write_guards(_GUARDS)
            options = [f"-oDPkg::Path={env['PATH']}", *(f"-oDPkg::Options::={option}" for option in _KEEP)]
            install = ["apt-get", "install", "--yes", "--no-install-recommends", *options, *wanted]
            finish = ["dpkg", *_KEEP, "--configure", "--pending"]  # what an interrupted run has left
            for argv in (finish, ["apt-get", "update"], install):
                code, out, err = run(argv, env)
                if code != 0:
                    module.fail_json(msg=f"{argv[0]} {argv[1]} failed on {', '.join(wanted)}: {tail(err or out)}")
    module.exit_json(changed=bool(wanted), installed=wanted)


if __name__ == "__main__":
    main()
