"""Collects the evidence of a whole site and diagnoses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackserve.doctor._evidence import read_evidence
from rackserve.doctor._finding import Finding
from rackserve.doctor._rules import diagnose
from rackserve.errors import InputError
from rackserve.run import inspect_fleet, unreachable_message

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
    found: dict[str, dict[str, Any]] = {}

    def take(event: RunEvent) -> None:
        evidence = event.data.get("evidence")
        if isinstance(evidence, dict):
            found[event.host] = evidence
        on_event(event)

    result = inspect_fleet(fleet.inventory, ["diagnose"], on_event=take, limit=limit)
    if not result.hosts:
        raise InputError(f"no host of {fleet.inventory} was checked; see --limit and hosts.yml")
    unread = {failure.host: unreachable_message(failure) for failure in result.unreachable}
    unread |= {failure.host: failure.message for failure in result.failures}
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
