from __future__ import annotations

import pytest

from rackserve.errors import InputError
from rackserve.lab import HostSpec, LabSpec, parse_release
from rackserve.lab._spec import check_lab_name, hardware_address, make_spec


def test_the_built_in_lab_has_three_hosts_on_its_own_network() -> None:
    spec = make_spec("demo", None, {})
    assert spec.prefix == "10.89.0"
    assert [(host.name, host.address, host.debian_release) for host in spec.hosts] == [
        ("gpu1", "10.89.0.11", 12),
        ("gpu2", "10.89.0.12", 12),
        ("edge1", "10.89.0.21", 12),
    ]


def test_another_lab_needs_a_prefix() -> None:
    with pytest.raises(InputError, match="give --prefix"):
        make_spec("other", None, {})
    assert make_spec("other", "10.89.9", {}).hosts[0].address == "10.89.9.11"


def test_a_release_is_taken_for_its_host_only() -> None:
    hosts = make_spec("demo", None, {"edge1": 13}).hosts
    assert [host.debian_release for host in hosts] == [12, 12, 13]


def test_a_release_of_an_unknown_host_is_refused() -> None:
    with pytest.raises(InputError, match="no lab host 'gpu9'"):
        make_spec("demo", None, {"gpu9": 13})


@pytest.mark.parametrize("prefix", ["10.89", "10.89.256", "8.8.8", "ten"])
def test_a_prefix_that_is_no_private_network_is_refused(prefix: str) -> None:
    with pytest.raises(InputError, match=r"10\.89\.9"):
        LabSpec("demo", prefix, ())


@pytest.mark.parametrize("name", ["", "Demo", "1lab", "a_b", "a/b", "..", "twelve-chars"])
def test_a_name_that_cannot_name_a_bridge_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="lab name"):
        check_lab_name(name)


def test_an_unsupported_release_is_refused() -> None:
    with pytest.raises(InputError, match="Debian 11 is not supported"):
        HostSpec("gpu1", "10.89.0.11", 11)


def test_a_release_is_read_from_host_and_number() -> None:
    assert parse_release("edge1=13") == ("edge1", 13)


@pytest.mark.parametrize("text", ["13", "edge1=", "=13", "edge1=trixie"])
def test_a_release_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="HOST=NUMBER"):
        parse_release(text)


def test_hardware_addresses_are_stable_local_and_distinct() -> None:
    one = hardware_address("demo", "gpu1")
    assert one == hardware_address("demo", "gpu1")
    assert one.startswith("02:")
    assert len(one) == 17
    assert one != hardware_address("demo", "gpu2")
