"""Reads the results of the module host_checks from a run's events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rackserve.checks._types import CheckResult, EdgeTarget
from rackserve.run import unreachable_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rackserve.run import RunEvent, RunResult


@dataclass(frozen=True)
class InstanceFacts:
    """An instance of the inventory: its URL, and the names that clients use."""

    name: str
    url: str
    served_names: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """The results and facts of one host."""

    host: str
    results: tuple[CheckResult, ...]
    rows: tuple[Mapping[str, object], ...] = ()
    address: str | None = None
    edge: EdgeTarget | None = None
    instances: tuple[InstanceFacts, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass
class EvidenceCollector:
    """Takes the events of a run of playbooks/verify_fleet.yml and keeps the evidence in them."""

    by_host: dict[str, Evidence] = field(default_factory=dict)

    def take(self, event: RunEvent) -> None:
        """Keep the event's evidence, if it has any."""
        if isinstance(event.data.get("checks"), list):
            self.by_host[event.host] = read_evidence(event.host, event.data)


def read_evidence(host: str, data: Mapping[str, object]) -> Evidence:
    """Turn a result of host_checks into evidence; an entry of another shape is a failed check, not a gap."""
    checks = data.get("checks")
    entries = checks if isinstance(checks, list) else []
    facts = data.get("facts")
    known: Mapping[str, object] = facts if isinstance(facts, Mapping) else {}
    address = str(known["address"]) if known.get("address") else None
    return Evidence(
        host=host,
        results=tuple(_read_result(host, entry) for entry in entries),
        rows=tuple(
            entry["data"] for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("data"), Mapping)
        ),
        address=address,
        edge=_read_edge(host, address or host, known.get("edge")),
        instances=_read_instances(known.get("instances")),
        facts=known,
    )


def _read_instances(listed: object) -> tuple[InstanceFacts, ...]:
    entries = listed if isinstance(listed, list) else []
    return tuple(
        InstanceFacts(str(entry["name"]), str(entry["url"]), tuple(str(name) for name in entry["served_names"]))
        for entry in entries
    )


def _read_result(host: str, entry: object) -> CheckResult:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("ok"), bool):
        return CheckResult("evidence", host, ok=False, detail=f"not the result of a check: {entry!r}")
    return CheckResult(str(entry.get("name")), host, ok=entry["ok"], detail=str(entry.get("detail", "")))


def _read_edge(host: str, address: str, edge: object) -> EdgeTarget | None:
    if not isinstance(edge, Mapping):
        return None
    return EdgeTarget(
        host=host,
        address=address,
        port=int(edge["port"]),
        server_name=str(edge["server_name"]),
        ca_file=_path(edge.get("ca_file")),
        key_file=_path(edge.get("key_file")),
        model=str(edge["model"]),
        expect=str(edge["expect"]),
        rate=int(edge["rate"]),
        burst=int(edge["burst"]),
        certificate_file=_path(edge.get("certificate_file")),
    )


def _path(value: object) -> Path | None:
    return Path(str(value)).expanduser() if value else None


def host_results(result: RunResult, evidence: Mapping[str, Evidence], hosts: Iterable[str]) -> tuple[CheckResult, ...]:
    """Return the verdicts of every host, one failed check for each host that gave no evidence."""
    unreachable = {failure.host: unreachable_message(failure) for failure in result.unreachable}
    failed = {failure.host: failure.message for failure in result.failures}
    found: list[CheckResult] = []
    for host in hosts:
        if host in evidence:
            found += evidence[host].results
        elif host in unreachable:
            found.append(CheckResult("reachable", host, ok=False, detail=unreachable[host]))
        else:
            detail = failed.get(host, "the host gave no evidence")
            found.append(CheckResult("evidence", host, ok=False, detail=detail))
    return tuple(found)
