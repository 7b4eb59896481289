"""A shared address: who holds it first, and what cannot be shared."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.edge import shared_address
from rackserve.errors import InputError

LINKS = [
    {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
    {"ifname": "eth1", "addr_info": [{"local": "192.0.2.21", "prefixlen": 24}]},
]
WANTED = {"address": "192.0.2.20", "hosts": ["192.0.2.21", "192.0.2.22"], "own": "192.0.2.21", "router_id": 51}


def plan(**changes: Any) -> dict[str, Any]:
    return shared_address({**WANTED, **changes}, LINKS)


def test_the_interface_is_that_of_the_hosts_own_address() -> None:
    assert plan() == {
        "interface": "eth1",
        "address": "192.0.2.20",
        "length": 24,
        "priority": 150,
        "peers": ["192.0.2.22"],
    }
    assert plan(address="192.0.2.20/24") == plan()


def test_the_first_host_is_the_likeliest() -> None:
    found = plan(hosts=["192.0.2.22", "192.0.2.21", "192.0.2.23"])
    assert (found["priority"], found["peers"]) == (140, ["192.0.2.22", "192.0.2.23"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"address": "edge.example"}, "keepalived_virtual_ip is 'edge.example'; set an IPv4 address"),
        ({"address": "2001:db8::1"}, "set an IPv4 address"),
        ({"address": "192.0.2.22"}, "192.0.2.22, a host's own"),
        ({"address": "198.51.100.20"}, "192.0.2.21 is on eth1 in 192.0.2.0/24; set a free one"),
        ({"address": "192.0.2.255"}, "set a free one of that network"),
        ({"address": "192.0.2.20/25"}, "has a network of /25, eth1 has 192.0.2.0/24"),
        ({"hosts": ["192.0.2.21"]}, "name two edges or more"),
        ({"hosts": ["192.0.2.22", "192.0.2.23"]}, "this one among them"),
        ({"own": "192.0.2.22"}, "no interface of the host has its address 192.0.2.22"),
        ({"router_id": 256}, "keepalived_virtual_router_id is 256; set 1 to 255"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        plan(**changes)
