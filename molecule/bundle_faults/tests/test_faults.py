"""Killed or out of disk anywhere, the next run ends as an undisturbed one does, and nothing half-done is ever used."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from testinfra import get_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

ROOT = Path(__file__).parents[3]
testinfra_hosts = ["ssh://gpu2"]
FOLDERS = "/opt/vllm /var/cache/huggingface /var/lib/rackserve/bundle"
# Names, kinds, sizes, modes, links and bytes. Bytecode is left out: it carries the time of its source's file.
TREE = (
    f"{{ find {FOLDERS} ! -name '*.pyc' -printf '%p %y %m %l\\n' | sort;"
    f" find {FOLDERS} -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum; }} | sha256sum"
)
BYTECODE = "find /opt/vllm -name '*.pyc' | sort | sha256sum"
CURRENT = "/opt/vllm/current"
OLD = "/opt/vllm/releases/old"
# The brackets keep the pattern from finding the shell that carries it.
KILLED_ON_THE_HOST = "pkill -9 -f '[u]v pip|[A]nsiballZ|[a]nsible-tmp|[s]ftp-server' || true"
KILLS = 20
BOOT_LIMIT_S = 60
RNG = random.Random(20261124)  # noqa: S311 - moments, not secrets; the same ones each time


def start(log: Path) -> subprocess.Popen[bytes]:
    argv = [
        *(str(Path(sys.executable).with_name("ansible-playbook")), "molecule/bundle_faults/converge.yml"),
        *("-i", "molecule/inventory", "-e", json.dumps({"faults_host": "gpu2"})),
    ]
    # A file and no pipe: Ansible's workers outlive it, and would hold a pipe open for ever.
    with log.open("wb") as output:
        return subprocess.Popen(
            argv,
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def run(log: Path) -> tuple[int, str]:
    code = start(log).wait()
    return code, log.read_text(errors="replace")


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it; Ansible's workers are in sessions of their own."""
    listed = subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).split()
    children: dict[int, list[int]] = {}
    for child, parent in zip(listed[::2], listed[1::2], strict=True):
        children.setdefault(int(parent), []).append(int(child))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def wait_for(host: Host) -> None:
    for _ in range(BOOT_LIMIT_S):
        with suppress(RuntimeError):  # what testinfra makes of a refused connection
            if host.run("systemctl is-system-running").stdout.strip() in {"running", "degraded"}:
                return
        time.sleep(1)
    pytest.fail(f"the host was not back after {BOOT_LIMIT_S} s")


def wipe(host: Host) -> None:
    host.check_output(f"rm -rf {FOLDERS} /opt/vllm")


def is_whole(host: Host) -> bool:
    """Return whether `current` is absent, or leads to a release that carries its stamp."""
    return host.run(f"[ ! -e {CURRENT} ] && [ ! -L {CURRENT} ] || [ -s {CURRENT}/.rackserve-complete ]").rc == 0


@pytest.fixture(scope="module")
def undisturbed(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return what the first host, which nobody disturbed, holds."""
    first = get_host("ssh://gpu1", ssh_config=request.config.getoption("--ssh-config"))
    return {command: first.check_output(command) for command in (TREE, BYTECODE)}


@pytest.fixture(scope="module")
def seconds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Return how long a whole run takes on this host."""
    wipe(get_host("ssh://gpu2", ssh_config=request.config.getoption("--ssh-config")))
    started = time.monotonic()
    assert run(tmp_path_factory.mktemp("log") / "first.log")[0] == 0
    return time.monotonic() - started


@pytest.mark.parametrize("moment", [RNG.random() for _ in range(KILLS)])
def test_a_killed_run_is_ended_by_the_next(
    host: Host, undisturbed: dict[str, str], seconds: float, moment: float, tmp_path: Path
) -> None:
    victim = ("controller", "host", "guest")[int(moment * 1000) % 3]
    wipe(host)
    process = start(tmp_path / "killed.log")
    time.sleep(moment * seconds)
    if victim == "host":
        host.run(KILLED_ON_THE_HOST)
    if victim == "guest":
        with suppress(RuntimeError):  # the connection dies with the guest
            host.run("systemctl reboot --force --force")
    for member in family(process.pid):
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    process.wait()
    wait_for(host)
    assert is_whole(host)
    code, output = run(tmp_path / "run.log")
    assert code == 0, output[-3000:]
    assert {command: host.check_output(command) for command in undisturbed} == undisturbed


def _used_kib(host: Host, folder: str) -> int:
    return int(host.check_output(f"du -sk {folder}").split()[0])


@pytest.fixture
def disk(request: pytest.FixtureRequest, host: Host, undisturbed: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Mount a disk in the place of a folder that has room for a part of it; give both."""
    del undisturbed
    folder, part = request.param
    first = get_host("ssh://gpu1", ssh_config=request.config.getoption("--ssh-config"))
    needed = _used_kib(first, folder)
    wipe(host)
    host.check_output(f"mkdir -p {folder} && mount -t tmpfs -o mode=755,size={int(needed * part)}k disk {folder}")
    yield folder, needed
    host.check_output(f"umount -l {folder}")


@pytest.mark.parametrize(
    "disk",
    [
        *(("/opt/vllm", part) for part in (0.05, 0.3, 0.5, 0.7)),
        *(("/var/lib/rackserve/bundle", part) for part in (0.05, 0.5, 0.95)),
        *(("/var/cache/huggingface", part) for part in (0.05, 0.5, 0.95)),
    ],
    indirect=True,
    ids=lambda value: f"{value[0]} {value[1]}",
)
def test_a_full_disk_loses_nothing(
    host: Host, disk: tuple[str, int], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    folder, needed = disk
    if folder == "/opt/vllm":
        host.check_output(f"mkdir -p {OLD} && echo old >{OLD}/.rackserve-complete && ln -s releases/old {CURRENT}")
    code, output = run(tmp_path / "run.log")
    assert code != 0
    assert "No space left on device" in output or "os error 28" in output
    assert is_whole(host)
    if folder == "/opt/vllm":
        assert host.check_output(f"readlink {CURRENT}") == "releases/old", "the old release is still the one in use"
        host.check_output(f"rm -rf {OLD}")
    host.check_output(f"mount -o remount,size={needed * 2}k {folder}")
    code, output = run(tmp_path / "run.log")
    assert code == 0, output[-3000:]
    assert {command: host.check_output(command) for command in undisturbed} == undisturbed
