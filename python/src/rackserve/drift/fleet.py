"""Compares a whole site with its records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rackserve.run import collect_from_fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rackserve.run import Fleet, RunEvent


@dataclass(frozen=True)
class Difference:
    """One difference of a host from its record; the program `host_state` describes the other attributes."""

    host: str
    kind: str
    what: str
    attribute: str
    recorded: str
    found: str
    text: str
    role: str
    since: str
    by: str


@dataclass(frozen=True)
class HostDrift:
    """What was found on one host.

    Attributes:
        written: time of its record, ISO 8601; empty without one.
        seconds: what the comparison took there.
        unchecked: why it could not be compared, or in which part.
    """

    host: str
    written: str
    seconds: float
    differences: tuple[Difference, ...]
    unchecked: tuple[str, ...]


def compare(fleet: Fleet, limit: str | None, on_event: Callable[[RunEvent], None]) -> list[HostDrift]:
    """Compare every host with its record, and change nothing.

    Raises:
        InputError: when no host was in the run.
    """
    result, found, failed = collect_from_fleet(fleet, "drift", "drift", on_event=on_event, limit=limit)
    in_run = {host.name for host in result.hosts}
    return [
        read_drift(name, found[name])
        if name in found
        else HostDrift(name, "", 0.0, (), (failed.get(name, "the host gave no result"),))
        for name in fleet.names
        if name in in_run
    ]


def read_drift(host: str, data: Mapping[str, Any]) -> HostDrift:
    """Return what the module host_record found."""
    return HostDrift(
        host,
        str(data["written"]),
        float(data["seconds"]),
        tuple(Difference(host=host, **one) for one in data["differences"]),
        tuple(_unchecked(data)),
    )


def _unchecked(data: Mapping[str, Any]) -> Iterator[str]:
    if data["problem"]:
        yield str(data["problem"])
    yield from (f"{kind} could not be compared: {reason}" for kind, reason in data["unread"].items())
