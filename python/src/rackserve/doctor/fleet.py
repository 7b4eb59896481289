"""Collects the evidence of a whole site and diagnoses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.doctor._evidence import read_evidence
from rackserve.doctor._finding import Finding
from rackserve.doctor._rules import diagnose
from rackserve.run import collect_from_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackserve.run import Fleet, RunEvent


def examine(fleet: Fleet, limit: str | None, on_event: Callable[[RunEvent], None]) -> tuple[list[Finding], int]:
    """Collect the evidence of faults and diagnose it.

    Returns:
        The findings, likeliest first, and how many hosts could be examined.

    Raises:
        InputError: when no host was examined.
    """
    _, found, unread = collect_from_fleet(fleet, "diagnose", "evidence", on_event=on_event, limit=limit)
    findings = [
        *(_unreachable(host, unread[host]) for host in fleet.names if host in unread),
        *diagnose(read_evidence(found.items())),
    ]
    return findings, len(found)


def _unreachable(host: str, message: str) -> Finding:
    return Finding(
        "the host is off, cut from the network, or cannot be read",
        host,
        "",
        message,
        "power, link, SSH",
        100,
        "no-host",
    )
