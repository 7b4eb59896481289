"""The virtual IP of the edges: its validation, and keepalived's settings (VRRP, RFC 3768)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final

from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HIGHEST: Final = 150
_STEP: Final = 10
_IDS: Final = range(1, 256)
_FEWEST: Final = 2
_MOST: Final = _HIGHEST // _STEP


def shared_address(wanted: Mapping[str, Any], links: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return interface, address, length of its network, priority and peers for one host.

    Args:
        wanted: `address`, `hosts` (addresses of all, highest priority first), `own` and `router_id`.
        links: output of `ip -json -4 address show` on the host.

    Raises:
        InputError: naming the wrong variable, the value found and what to set.
    """
    hosts, own = [str(host) for host in wanted["hosts"]], str(wanted["own"])
    if int(wanted["router_id"]) not in _IDS:
        raise InputError(f"keepalived_virtual_router_id is {wanted['router_id']}; set 1 to 255")
    if not _FEWEST <= len(set(hosts)) <= _MOST or own not in hosts:
        raise InputError(f"keepalived_hosts is {hosts} on the host {own}; name two edges or more, this one among them")
    address, length = _parse(str(wanted["address"]))
    if str(address) in hosts:
        raise InputError(f"keepalived_virtual_ip is {address}, a host's own; set one that no host has")
    interface, network = _place(own, links)
    if address not in network or address in (network.network_address, network.broadcast_address):
        raise InputError(
            f"keepalived_virtual_ip is {address}, and {own} is on {interface} in {network}; "
            "set a free one of that network"
        )
    if length not in (None, network.prefixlen):
        raise InputError(
            f"keepalived_virtual_ip has a network of /{length}, {interface} has {network}; leave /{length} out"
        )
    return {
        "interface": interface,
        "address": str(address),
        "length": network.prefixlen,
        "priority": _HIGHEST - _STEP * hosts.index(own),
        "peers": [host for host in hosts if host != own],
    }


def _parse(text: str) -> tuple[ipaddress.IPv4Address, int | None]:
    address, _, length = text.partition("/")
    try:
        return ipaddress.IPv4Address(address), int(length) if length else None
    except ValueError as wrong:
        raise InputError(f"keepalived_virtual_ip is {text!r}; set an IPv4 address such as 192.0.2.20") from wrong


def _place(own: str, links: Sequence[Mapping[str, Any]]) -> tuple[str, ipaddress.IPv4Network]:
    for link in links:
        for found in link.get("addr_info", ()):
            if found.get("local") == own:
                network = ipaddress.IPv4Network(f"{own}/{found['prefixlen']}", strict=False)
                return str(link["ifname"]), network
    raise InputError(
        f"no interface of the host has its address {own}; set keepalived_unicast_src_ip to one that it has"
    )
