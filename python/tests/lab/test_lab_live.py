"""The lab for real: needs root, boots hosts. Run with `pytest -m lab`."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from rackserve import lab
from rackserve.errors import LabError
from rackserve.lab._processes import find
from rackserve.lab._state import load

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "labtest"
SNAPSHOT = "labtest"
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", autouse=True)
def _lab() -> Iterator[None]:
    lab.down(NAME)
    if SNAPSHOT in {found.name for found in lab.load_snapshots()}:
        lab.remove_snapshot(SNAPSHOT)
    lab.up(lab.lab_spec(NAME, prefix="10.89.7"), only=["gpu1", "edge1"])
    yield
    lab.down(NAME)


def ssh(host: str, command: str) -> str:
    argv = lab.ssh_argv(NAME, host, [command])
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def host(name: str) -> lab.HostStatus:
    return next(entry for entry in lab.status(NAME).hosts if entry.name == name)


def uuid(name: str) -> str:
    record = load(NAME)
    assert record is not None
    return record.host(name).uuid


def test_a_host_runs_without_a_way_out() -> None:
    status = host("gpu1")
    assert (status.state, status.has_default_route, status.packets_left_lab) == ("running", False, 0)
    assert ssh("gpu1", "ls /sys/class/net").split() == ["host0", "lo"]


def test_hosts_reach_each_other_by_name() -> None:
    assert ssh("gpu1", "python3 -c 'import socket; print(socket.create_connection((\"edge1\", 22), 5).recv(4))'")


def test_the_counter_of_packets_counts() -> None:
    assert lab.leak_control(NAME, "gpu1") == 1
    assert host("gpu1").packets_left_lab == 0


def test_up_leaves_running_hosts_alone() -> None:
    before = host("gpu1").leader
    assert not lab.up(lab.lab_spec(NAME), only=["gpu1"]).changed
    assert host("gpu1").leader == before


def test_a_reboot_keeps_the_disk_and_the_counter() -> None:
    ssh("gpu1", "touch /root/kept")
    boots = host("gpu1").boots
    assert lab.reboot(NAME, "gpu1") < 30
    ssh("gpu1", "test -e /root/kept")
    assert host("gpu1").boots == boots + 1
    assert lab.leak_control(NAME, "gpu1") == 1


def test_guests_have_control_groups_of_their_own() -> None:
    ssh("gpu1", "systemd-run --unit=own sleep 60")
    assert ssh("edge1", "test -e /sys/fs/cgroup/system.slice/own.service || echo none") == "none"


def test_a_unit_may_be_kept_to_addresses_and_devices() -> None:
    send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.89.7.1', 9))"
    command = f'systemd-run --wait --pipe -q -p IPAddressDeny=any python3 -c "{send}" 2>&1 || :'
    assert "Operation not permitted" in ssh("gpu1", command)
    read = (
        "systemd-run --wait --pipe -q -p DevicePolicy=strict -p DeviceAllow=/dev/null head -c1 /dev/urandom 2>&1 || :"
    )
    assert "Operation not permitted" in ssh("gpu1", read)


def test_a_reset_gives_a_fresh_disk() -> None:
    ssh("edge1", "touch /root/gone")
    lab.reset(NAME, ["edge1"])
    assert ssh("edge1", "test -e /root/gone || echo fresh") == "fresh"


def test_a_clone_has_the_disk_of_the_host_and_no_identity_of_it() -> None:
    identity = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub; hostname -I"
    ssh("gpu1", "echo kept >/root/installed; rm /etc/debian_version; systemctl mask --quiet e2scrub_all.timer")
    before = ssh("gpu1", identity).split("\n")
    lab.snapshot(NAME, "gpu1", SNAPSHOT)
    lab.reset(NAME, ["edge1"], origin=SNAPSHOT)
    identities = [before, *(ssh(name, identity).split("\n") for name in ("gpu1", "edge1"))]
    for name in ("gpu1", "edge1"):
        assert (
            ssh(name, "cat /root/installed; test -e /etc/debian_version || echo gone; hostname")
            == f"kept\ngone\n{name}"
        )
        assert ssh(name, "systemctl is-enabled e2scrub_all.timer || :") == "masked"
        assert (host(name).packets_left_lab, host(name).has_default_route) == (0, False)
    for row in zip(*(found[:2] for found in identities), strict=True):
        assert len(set(row)) == 3, "machine ids and host keys differ"
    assert [found[2].split()[0] for found in identities] == ["10.89.7.11", "10.89.7.11", "10.89.7.21"]
    ssh("gpu1", "echo more >>/root/installed")
    assert ssh("edge1", "cat /root/installed") == "kept", "clones share nothing that they write"
    with pytest.raises(LabError, match=f"{SNAPSHOT} is in use by host edge1 of lab {NAME}, host gpu1 of lab"):
        lab.remove_snapshot(SNAPSHOT)
    lab.reset(NAME)
    assert ssh("gpu1", "test -e /root/installed || echo bare") == "bare"
    lab.remove_snapshot(SNAPSHOT)


def test_a_killed_container_comes_back_by_up() -> None:
    for pid in find(uuid("gpu1")).containers:
        os.kill(pid, signal.SIGKILL)
    lab.up(lab.lab_spec(NAME), only=["gpu1"])
    assert host("gpu1").state == "running"


def test_a_host_without_its_supervisor_is_repaired_by_up() -> None:
    for pid in find(uuid("gpu1")).supervisors:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(LabError, match="does not run"):
        lab.reboot(NAME, "gpu1")
    lab.up(lab.lab_spec(NAME), only=["gpu1"])
    assert host("gpu1").supervised


def test_down_leaves_nothing_after_a_kill() -> None:
    """Last: it takes the lab down."""
    uuids = [uuid("gpu1"), uuid("edge1")]
    found = find(uuids[0])
    for pid in (*found.supervisors, *found.containers):
        os.kill(pid, signal.SIGKILL)
    assert find(uuids[0]).leader is not None, "the guest survives its nspawn, or this test tests nothing"
    assert lab.down(NAME)
    assert not any(find(each).any for each in uuids)
    assert not lab.lab_dir(NAME).exists()
    for pattern in (f"rsk-{NAME}", f"labs/{NAME}/"):
        links = subprocess.run(["ip", "link"], check=True, capture_output=True, text=True).stdout
        mounts = subprocess.run(["mount"], check=True, capture_output=True, text=True).stdout
        assert pattern not in links + mounts
    assert not lab.down(NAME)
