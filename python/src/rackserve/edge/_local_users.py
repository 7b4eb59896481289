"""Rules of nftables that keep login users of an edge's host away from the engines."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rackserve.edge._backend import Backend


def engine_matches(backends: Iterable[Backend]) -> list[str]:
    """Return what matches a packet to an instance, in nftables' words, sorted.

    Engines take connections from an edge's address, whoever opens them there, and have no keys of their own. An address
    that is a name matches by its port alone: nftables would look it up once, when it reads the rule.
    """
    return sorted({_match(backend.address, backend.port) for backend in backends})


def _match(address: str, port: int) -> str:
    try:
        found = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return f"tcp dport {port}"
    return f"{'ip' if found.version == 4 else 'ip6'} daddr {found} tcp dport {port}"  # noqa: PLR2004 - a version
