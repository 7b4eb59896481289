"""What an engine, its socket proxy and its probe must not be able to do is refused inside their sandboxes.

Each attempt is made outside too. One that fails even there says nothing about the sandbox and is skipped by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testing.generations import engine_unit, unit_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

ATTEMPTS = Path(__file__).with_name("attempts.py")
NAMES = (
    "write to /usr",
    "write to /etc",
    "write to another release",
    "read /home",
    "read /root",
    "mount",
    "make a user namespace",
    "trace a process",
    "become another user by a setuid program",
    "open a raw socket",
    "load a kernel module",
    "read /dev/mem",
    "open a device of another instance",
    "reach another host",
    "signal another user's process",
)
SCRIPT = "/usr/local/lib/rackserve-attempts.py"
SETUID = "/usr/local/lib/rackserve-setuid"
NODE = "/dev/rackserve-node"
OTHER_USER = "rackserve-other-user"
INSTANCE = "sandbox"
ENGINE = unit_of(INSTANCE, "0000000000")
UNITS = {
    "engine": ENGINE,
    "proxy": f"vllm-proxy@{INSTANCE}.service",
    "probe": f"vllm-probe@{INSTANCE}.service",
}
RUN = "/run/systemd/system"
DROPIN = """[Service]
Type=oneshot
Restart=no
EnvironmentFile=
ExecCondition=
ExecStart=
ExecStart={command}
ExecStartPost=
ExecStopPost=
StandardOutput=truncate:{output}
"""


@pytest.fixture(scope="module")
def command(host: Host) -> Iterator[str]:
    """Bring the attempts to the host with what they are made at; return the command line."""
    host.check_output("printf %%s %s >%s", ATTEMPTS.read_text(), SCRIPT)
    host.check_output(
        f"mknod -m 666 {NODE} c 10 200 || test -c {NODE}; install -o daemon -m 4755 /usr/bin/id {SETUID};"
        f" systemd-run --quiet --unit={OTHER_USER} --uid=nobody sleep infinity"
    )
    pid = host.check_output(f"systemctl show --property=MainPID --value {OTHER_USER}")
    second = ".".join([*host.check_output("hostname -I").split()[0].split(".")[:3], "12"])
    yield f"/usr/bin/python3 {SCRIPT} /opt/vllm/releases {NODE} {SETUID} {second} {pid}"
    host.run(f"systemctl stop {OTHER_USER}; rm -f {NODE} {SETUID} {SCRIPT}")


@pytest.fixture(scope="module")
def outside(host: Host, command: str) -> dict[str, bool]:
    """Return what root can do without a sandbox, and the setuid program for a plain user."""
    found: dict[str, bool] = json.loads(host.check_output(command))
    return found


@pytest.fixture(scope="module")
def inside(host: Host, command: str) -> Iterator[dict[str, dict[str, bool]]]:
    """Return what succeeds in the sandbox of each unit: an instance of its own runs the attempts instead."""
    found = {}
    live = f"/etc/systemd/system/{engine_unit('tiny')}"
    host.check_output(f"sed 's/\\btiny\\b/{INSTANCE}/g' {live} >{RUN}/{ENGINE}")
    assert f"StateDirectory=vllm/{INSTANCE}\n" in host.file(f"{RUN}/{ENGINE}").content_string
    for unit in UNITS.values():
        folder, output = f"{RUN}/{unit}.d", f"/run/rackserve-{unit}.json"
        text = DROPIN.format(command=command, output=output)
        host.check_output("mkdir -p %s && printf %%s %s >%s/99-attempts.conf", folder, text, folder)
        host.check_output(f"systemctl daemon-reload && systemctl start {unit}")
        found[unit] = json.loads(host.check_output(f"cat {output}"))
    yield found
    for unit in UNITS.values():
        host.run(f"rm -rf {RUN}/{unit}.d /run/rackserve-{unit}.json")
    host.run(f"rm {RUN}/{ENGINE}; systemctl daemon-reload; rm -rf /var/lib/vllm/{INSTANCE} /var/cache/vllm/{INSTANCE}")


@pytest.mark.parametrize("attempt", NAMES)
@pytest.mark.parametrize("unit", UNITS)
def test_a_sandbox_refuses(
    outside: dict[str, bool], inside: dict[str, dict[str, bool]], unit: str, attempt: str
) -> None:
    if not outside[attempt]:
        pytest.skip("refused outside the sandbox too, so this host shows nothing")
    assert not inside[UNITS[unit]][attempt]


def test_every_attempt_is_looked_at(outside: dict[str, bool]) -> None:
    assert tuple(outside) == NAMES


@pytest.mark.parametrize("directive", ["MemoryMax=60M", "TasksMax=1", "DevicePolicy=closed", "IPAddressDeny=any"])
def test_what_this_host_enforces_at_all(host: Host, command: str, directive: str) -> None:
    second = command.split()[-2]
    attempt = {
        "MemoryMax=60M": "python3 -c 'bytearray(300 << 20)'",
        "TasksMax=1": "sh -c '/bin/true; exit $?'",
        "DevicePolicy=closed": f"sh -c ': <>{NODE}'",
        "IPAddressDeny=any": f"python3 -c 'import socket; socket.create_connection((\"{second}\", 22), 3)'",
    }[directive]
    run = "systemd-run --quiet --wait --pipe"
    assert host.run(f"{run} {attempt}").rc == 0, "the attempt succeeds where nothing forbids it"
    if host.run(f"{run} --property={directive} {attempt}").rc == 0:
        pytest.skip(f"{directive} is not enforced here: no test of it would show anything")
