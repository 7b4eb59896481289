from __future__ import annotations

from typing import Any

import pytest

from rackserve.lab._network import conflict, parse_counter, ruleset


def interface(name: str, address: str, length: int) -> dict[str, Any]:
    return {"ifname": name, "addr_info": [{"local": address, "prefixlen": length}]}


@pytest.mark.parametrize(("address", "length"), [("10.89.9.200", 25), ("10.89.0.1", 16), ("10.89.9.77", 32)])
def test_an_interface_inside_the_labs_network_is_a_conflict(address: str, length: int) -> None:
    found = conflict([interface("eth1", address, length)], "10.89.9.0/24", "rsk-other")
    assert found == f"eth1 {address}/{length}"


def test_other_networks_and_the_labs_own_bridge_are_none() -> None:
    addresses = [interface("eth0", "192.0.2.2", 24), interface("rsk-other", "10.89.9.1", 24), {"ifname": "ifb0"}]
    assert conflict(addresses, "10.89.9.0/24", "rsk-other") is None


def test_only_loopback_and_the_lab_are_let_out() -> None:
    lines = [line.strip() for line in ruleset("10.89.9.0/24").splitlines()]
    at = lines.index("oif lo accept")
    assert lines[at + 1 : at + 3] == ["ip daddr 10.89.9.0/24 accept", "counter name left_lab drop"]


def test_the_counter_is_read() -> None:
    text = '{"nftables": [{"metainfo": {}}, {"counter": {"name": "left_lab", "packets": 4, "bytes": 240}}]}'
    assert parse_counter(text) == 4
    assert parse_counter('{"nftables": []}') is None
