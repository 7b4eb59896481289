#!/usr/bin/python
"""Install one complete vLLM environment beside the others, and point `current` at it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_release
short_description: Install a vLLM release from wheels beside the others
description:
  - Makes a virtual environment under C(releases/<id>) from a hash-locked wheelhouse, compiles its bytecode, compares
    every installed file with what its wheel recorded and the packages with the lock, imports vLLM, and only then writes
    the stamp C(.rackserve-complete), the sha256 of the lock. A release without that stamp is removed and made again;
    C(current) only ever points at a stamped one. Where instances run, C(current) stays: it follows their switch.
options:
  root: {description: "Home of the releases, such as /opt/vllm.", type: str, required: true}
  id: {description: Name of the release., type: str, required: true}
  lock: {description: Requirements with hashes., type: str, required: true}
  lock_sha256: {description: The lock's sha256., type: str, required: true}
  wheels: {description: Folder with every wheel of the lock., type: str, required: true}
  python: {description: "The host's Python to build on, such as /usr/bin/python3.11.", type: str, required: true}
  imports:
    description: What the environment has to import; vLLM, unless it is an environment of something else.
    type: str
    default: vllm, vllm.entrypoints.openai.api_server
author: rackserve
"""
EXAMPLES = r"""
- name: Install vLLM
  vllm_release:
    root: /opt/vllm
    id: 0.32.0-0123456789ab
    lock: /var/lib/rackserve/bundle/locks/vllm-0.32.0-cpu-py311.txt
    lock_sha256: "{{ sha256 }}"
    wheels: /var/lib/rackserve/bundle/wheels/vllm-0.32.0-cpu-py311
    python: /usr/bin/python3.11
"""
RETURN = r"""
path: {description: The release's folder., type: str, returned: always}
installed: {description: Whether the release was made by this run., type: bool, returned: always}
switched: {description: Whether `current` was pointed elsewhere by this run., type: bool, returned: always}
"""

import glob
import os
import re
import shutil
import zipfile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_generations import instances, linked
from ansible.module_utils.rackserve_host import host_lock, run, switch_link, tail, write_durably
from ansible.module_utils.rackserve_record import record_problems
from ansible.module_utils.verify_bundle import sha256_of

STAMP = ".rackserve-complete"
_SHOWN = 5
_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)(?:\s+--hash=\S+)*")
_LIST = (
    "import importlib.metadata as m, re\n"
    "for d in m.distributions(): print(re.sub('[-_.]+', '-', d.metadata['Name']).lower() + '==' + d.version)"
)


class ReleaseError(Exception):
    """A step failed; the message says which and why."""


def stamp_of(path: str) -> str:
    """Return the lock digest that a complete release carries, or an empty string."""
    try:
        with open(os.path.join(path, STAMP), encoding="utf-8") as source:
            return source.read().strip()
    except OSError:
        return ""


def pins(lock: str) -> set[str]:
    """Return the `name==version` pins of a lock's text, names normalised as PEP 503 says.

    Raises:
        ReleaseError: naming a line that is no such pin; bundle build writes no other.
    """
    found = set()
    for line in re.sub(r"\\\n", " ", lock).splitlines():
        text = re.sub(r"(^|\s)#.*$", "", line).strip()
        match = _PIN.fullmatch(text)
        if match:
            found.add(f"{re.sub('[-_.]+', '-', match['name']).lower()}=={match['version']}")
        elif text and not text.startswith("--"):
            raise ReleaseError(f"the lock has a line that is no pin: {text!r}; build the bundle again")
    return found


def extract_uv(wheels: str, into: str) -> str:
    """Take the installer out of its own wheel and return its path."""
    wheel = next(iter(glob.glob(os.path.join(wheels, "uv-*.whl"))), None)
    if wheel is None:
        raise ReleaseError(f"no uv wheel in {wheels}; build the bundle from a lock that pins uv")
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".data/scripts/uv"))
        path: str = archive.extract(member, into)
    os.chmod(path, 0o700)
    return path


def step(what: str, argv: list[str], env: dict[str, str]) -> str:
    """Run one step of the installation and return its standard output.

    Raises:
        ReleaseError: with the program's last lines.
    """
    done: tuple[int, str, str] = run(argv, env)
    code, out, err = done
    if code != 0:
        raise ReleaseError(f"cannot {what}: {tail(err or out)}")
    return out


def compare_with_lock(lock: str, installed: str) -> None:
    """Refuse an environment that holds another set of packages than its lock.

    Raises:
        ReleaseError: naming the packages that differ.
    """
    with open(lock, encoding="utf-8") as source:
        wanted = pins(source.read())
    if wanted != set(installed.split()):
        different = sorted(wanted.symmetric_difference(installed.split()))
        raise ReleaseError(f"installed and locked packages differ: {', '.join(different)}")


def compare_with_records(path: str, wheels: str = "") -> None:
    """Refuse an environment whose files are not those that its wheels recorded; neither pip nor uv compares them.

    Args:
        path: the release's folder.
        wheels: the folder of its wheels, which decide where a wheel is wrong about its own files.

    Raises:
        ReleaseError: naming the first files that differ.
    """
    folders = glob.glob(f"{path}/lib/python3*/site-packages")
    if not folders:
        raise ReleaseError(f"{path} has no lib/python3*/site-packages, so nothing can be compared with its records")
    found = [problem for folder in folders for problem in record_problems(folder, wheels)]
    if found:
        more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ReleaseError(f"installed files differ from their records: {'; '.join(found[:_SHOWN])}{more}")


def make_release(path: str, params: dict[str, str]) -> None:
    """Install and check a release; the stamp is the last thing written.

    Raises:
        ReleaseError: when a step fails; the folder is removed.
    """
    home = os.path.dirname(os.path.dirname(path))
    scratch = os.path.join(home, ".install")  # beside the release: hard links work, and /tmp may be small
    for left_over in (path, scratch):
        shutil.rmtree(left_over, ignore_errors=True)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    os.makedirs(scratch, mode=0o700)
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": scratch, "TMPDIR": scratch}
    env["UV_NO_INSTALLER_METADATA"] = "1"  # it would hold the times of the wheels' files: equal releases would differ
    python = os.path.join(path, "bin", "python")
    try:
        uv = extract_uv(params["wheels"], scratch)
        quiet = ["--offline", "--quiet", f"--cache-dir={scratch}/cache"]
        step("make the environment", [uv, "venv", *quiet, "--python", params["python"], path], env)
        install = [uv, "pip", "install", *quiet, f"--python={python}", "--no-index", f"--find-links={params['wheels']}"]
        locked = ["--no-deps", "--require-hashes", "--compile-bytecode", "--link-mode=hardlink", "-r", params["lock"]]
        step("install the locked wheels", [*install, *locked], env)
        compare_with_records(path, params["wheels"])  # before the environment's own Python runs, and with it any .pth
        compare_with_lock(params["lock"], step("list what is installed", [python, "-c", _LIST], env))
        os.unlink(os.path.join(path, ".lock"))  # the installer's, and writable by everyone
        step("import it", [python, "-c", f"import {params['imports']}"], {**env, "VLLM_NO_USAGE_STATS": "1"})
    except ReleaseError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    os.sync()
    write_durably(os.path.join(path, STAMP), f"{params['lock_sha256']}\n".encode())


def main() -> None:
    """Run the module."""
    required = {"type": "str", "required": True}
    names = ("root", "id", "lock", "lock_sha256", "wheels", "python")
    imports = {"type": "str", "default": "vllm, vllm.entrypoints.openai.api_server"}
    spec = {**dict.fromkeys(names, required), "imports": imports}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    path = os.path.join(params["root"], "releases", params["id"])
    current = os.path.join(params["root"], "current")
    complete = stamp_of(path) == params["lock_sha256"]
    serves = os.path.islink(current) and any(map(linked, instances()))
    if module.check_mode:
        pointed = serves or (os.path.islink(current) and os.path.realpath(current) == path)
        module.exit_json(changed=not (complete and pointed), path=path, installed=not complete, switched=not pointed)
    if not complete:
        if sha256_of(params["lock"]) != params["lock_sha256"]:
            module.fail_json(msg=f"{params['lock']} is not the lock of release {params['id']}; run the role `bundle`")
        try:
            with host_lock():
                if stamp_of(path) != params["lock_sha256"]:  # an earlier run may have ended it meanwhile
                    make_release(path, params)
        except (ReleaseError, OSError) as failed:
            module.fail_json(msg=f"release {params['id']} was not installed, nothing was switched: {failed}")
    switched = not serves and switch_link(current, os.path.join("releases", params["id"]))
    module.exit_json(changed=switched or not complete, path=path, installed=not complete, switched=switched)


if __name__ == "__main__":
    main()
