"""How the driver's module works on a host: its packages, apt's view of a set, and the sets that are kept.

Standard library only, Python 3.9 and newer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import Any

from ansible.module_utils.rackserve_driver import KERNEL_IMAGE
from ansible.module_utils.rackserve_host import run, tail, write_durably

CONFIG = "/etc/rackserve/apt.conf"


class DriverError(Exception):
    """The error message for an operator."""


def command(argv: list[str], env: dict[str, str] | None = None) -> str:
    """Run a program and return its output; raise with the end of it when it fails."""
    code, out, err = run(argv, env)
    if code != 0:
        raise DriverError(f"{' '.join(argv[:2])} failed: {tail(f'{out}{err}')}")
    return str(out)


def dkms_status() -> str:
    """Return what dkms lists; one broken module of somebody else's makes it fail after the list of the others."""
    code, out, err = run(["dkms", "status"])
    if code != 0 and not out.strip():
        raise DriverError(f"dkms status failed: {tail(err)}")
    return str(out)


def packages() -> dict[str, str]:
    """Return the installed packages and their versions."""
    shown = command(["dpkg-query", "--show", "--showformat", "${Package}\\t${Version}\\t${db:Status-Status}\\n"])
    rows = (line.split("\t") for line in shown.splitlines())
    return {name: version for name, version, state in rows if state == "installed"}


def kernels_of(present: dict[str, str]) -> dict[str, str]:
    """Return the kernels among installed packages, with their versions."""
    return {name: version for name, version in present.items() if KERNEL_IMAGE.fullmatch(name)}


def apt_environment(folder: str, *repositories: str) -> dict[str, str]:
    """Return an environment in which apt reads these repositories and nothing else; its files are in a folder."""
    lines = [f"deb [signed-by={path}/archive-key.gpg] file:{path} ./\n" for path in repositories]
    with open(CONFIG, encoding="utf-8") as source:
        config = source.read()
    for name in ("lists", "cache"):
        os.makedirs(f"{folder}/{name}/{'partial' if name == 'lists' else 'archives/partial'}", exist_ok=True)
    config += f'Dir::Etc::sourcelist "{folder}/sources.list";\n'
    config += f'Dir::State::lists "{folder}/lists";\nDir::Cache "{folder}/cache";\n'
    for name, text in (("sources.list", "".join(lines)), ("apt.conf", config)):
        with open(f"{folder}/{name}", "w", encoding="utf-8") as target:
            target.write(text)
    return {**os.environ, "APT_CONFIG": f"{folder}/apt.conf", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}


def debian_repository() -> list[str]:
    """Return the bundle's own repository, which may have what a kept set depends on; none before it is placed."""
    with open(CONFIG, encoding="utf-8") as source:
        listed = re.search(r'^Dir::Etc::sourcelist "(?P<path>[^"]+)";$', source.read(), re.MULTILINE)
    with open(listed["path"] if listed else os.devnull, encoding="utf-8") as source:
        return re.findall(r"file:(/\S+)", source.read())


def keep_set(chosen: dict[str, Any], keep: str) -> bool:
    """Keep a set on the host, by hard links where the filesystem allows; return whether it was not kept before."""
    home = os.path.join(keep, f"{chosen['version']}-{chosen['flavour']}")
    record = json.dumps({**chosen, "path": f"{home}/apt"}, sort_keys=True).encode()
    if chosen["path"] == f"{home}/apt":
        return False
    index = [os.path.join(folder, "InRelease") for folder in (chosen["path"], f"{home}/apt")]
    if os.path.exists(index[1]) and _read(index[0]) == _read(index[1]) and os.path.exists(f"{home}/set.json"):
        return False
    shutil.rmtree(home, ignore_errors=True)
    os.makedirs(home, mode=0o755)
    shutil.copytree(chosen["path"], f"{home}/apt", copy_function=_link)
    write_durably(f"{home}/set.json", record)
    return True


def _read(path: str) -> bytes:
    with open(path, "rb") as source:
        return source.read()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def record_of(keep: str) -> dict[str, Any]:
    """Return what an earlier run wrote: current, previous, added; empty on a host without one."""
    try:
        return dict(json.loads(_read(os.path.join(keep, "record.json"))))
    except (OSError, ValueError):
        return {}


def prune(keep: str, wanted: set[str]) -> None:
    """Remove the sets that are no longer needed for going back."""
    for name in os.listdir(keep) if os.path.isdir(keep) else []:
        folder = os.path.join(keep, name)
        if os.path.isdir(folder) and name not in wanted:
            shutil.rmtree(folder)
