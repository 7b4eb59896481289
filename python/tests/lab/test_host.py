from __future__ import annotations

from rackserve.lab._host import hosts_file, network_file
from rackserve.lab._processes import is_container, is_supervisor
from rackserve.lab._spec import make_spec
from rackserve.lab._ssh import argv, config_text, known_hosts_line
from rackserve.lab._state import merge
from rackserve.lab._supervisor import nspawn_argv

LAB = merge(None, make_spec("demo", None, {}))
GPU1 = LAB.host("gpu1")


def test_every_host_knows_every_host_by_name() -> None:
    assert hosts_file(LAB, "gpu1").splitlines()[1:] == [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        "10.89.0.1 controller",
        "10.89.0.11 gpu1",
        "10.89.0.12 gpu2",
        "10.89.0.21 edge1 rackserve.lab",
    ]


def test_a_guest_gets_an_address_and_no_way_out() -> None:
    text = network_file(GPU1)
    assert "Address=10.89.0.11/24" in text
    assert "Gateway" not in text
    assert "DHCP" not in text


def test_host_keys_are_known_by_address_and_name() -> None:
    line = known_hosts_line(GPU1, "ssh-ed25519 AAAA gpu1\n")
    assert line == "10.89.0.11,gpu1 ssh-ed25519 AAAA\n"


def test_ssh_checks_host_keys() -> None:
    text = config_text(LAB)
    assert "StrictHostKeyChecking yes" in text
    assert "Host gpu1\n  HostName 10.89.0.11\n" in text
    assert argv(GPU1, ["uptime"])[-2:] == ["gpu1", "uptime"]


def test_a_machine_name_carries_the_lab() -> None:
    assert "--machine=demo-gpu1" in nspawn_argv(GPU1)


def test_only_the_labs_own_processes_are_taken_for_its_own() -> None:
    words = [*nspawn_argv(GPU1), ""]
    assert is_container(words, GPU1.uuid)
    assert not is_container(words, LAB.host("gpu2").uuid)
    assert not is_container(["grep", f"--uuid={GPU1.uuid}"], GPU1.uuid)
    assert is_supervisor(["/usr/bin/python3", "-m", "rackserve.lab._supervisor", GPU1.uuid, "demo", "gpu1"], GPU1.uuid)
    assert not is_supervisor(["vi", "rackserve.lab._supervisor", GPU1.uuid], GPU1.uuid)
