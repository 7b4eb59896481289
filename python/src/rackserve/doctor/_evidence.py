"""Evidence of the hosts: alerts of Prometheus, units with their journals, disks, the edge's last answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Alert:
    """An alert that is firing or pending."""

    name: str
    state: str
    labels: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""
    runbook: str = ""


@dataclass(frozen=True)
class UnitEvidence:
    """One instance on one host.

    Attributes:
        active: systemd's ActiveState.
        result: systemd's Result: success, exit-code, oom-kill, timeout, start-limit-hit, ...
        journal: the last lines of its engine, oldest first.
        begins: places of lines in it with which a start begins, as systemd numbers invocations.
        probe: the last state of its probe; `probe_detail` explains it.
        drained: whether an operator keeps it closed.
    """

    host: str
    instance: str
    active: str = "active"
    result: str = "success"
    restarts: int = 0
    journal: tuple[str, ...] = ()
    begins: tuple[int, ...] = ()
    probe: str = "ready"
    probe_detail: str = ""
    drained: bool = False


class Drained(NamedTuple):
    """An instance that an edge keeps out of rotation: its label, `operator` or `rollout`, and the rollout's run."""

    label: str
    by: str = "operator"
    run: str = ""


@dataclass(frozen=True)
class Evidence:
    """The evidence of a fleet.

    Attributes:
        reached: hosts that gave evidence themselves.
        free: free share of a filesystem by host and mount point.
        answers: number of answers of the edge by status in the last ten minutes, by host.
        minutes: number of those minutes in which a status occurred, by host.
        services: systemd's ActiveState by host and required unit.
        unwatched: hosts whose Prometheus did not answer.
        drained: the instances that an edge keeps out of rotation, by edge.
    """

    alerts: tuple[Alert, ...] = ()
    units: tuple[UnitEvidence, ...] = ()
    reached: frozenset[str] = frozenset()
    free: Mapping[tuple[str, str], float] = field(default_factory=dict)
    answers: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    minutes: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    services: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unwatched: frozenset[str] = frozenset()
    drained: Mapping[str, tuple[Drained, ...]] = field(default_factory=dict)


def read_evidence(found: Iterable[tuple[str, Mapping[str, Any]]]) -> Evidence:
    """Return the evidence from the results of the module host_evidence.

    Args:
        found: hosts and their data, as that module's RETURN has it.
    """
    alerts: list[Alert] = []
    units: list[UnitEvidence] = []
    free: dict[tuple[str, str], float] = {}
    answers: dict[str, dict[int, int]] = {}
    minutes: dict[str, dict[int, int]] = {}
    services: dict[tuple[str, str], str] = {}
    drained: dict[str, tuple[Drained, ...]] = {}
    reached: set[str] = set()
    unwatched: set[str] = set()
    for host, data in found:
        reached.add(host)
        alerts += [
            Alert(
                str(alert["labels"].get("alertname", "")),
                str(alert["state"]),
                {str(key): str(value) for key, value in alert["labels"].items()},
                str(alert.get("annotations", {}).get("summary", "")),
                str(alert.get("annotations", {}).get("runbook", "")),
            )
            for alert in data.get("alerts") or ()
        ]
        units += [
            UnitEvidence(host=host, **{**unit, "journal": tuple(unit["journal"]), "begins": tuple(unit["begins"])})
            for unit in data["units"]
        ]
        free.update({(host, mount): float(share) for mount, share in data["free"].items()})
        if data["answers"]:
            answers[host] = {int(status): int(found["count"]) for status, found in data["answers"].items()}
            minutes[host] = {int(status): int(found["minutes"]) for status, found in data["answers"].items()}
        services.update({(host, str(name)): str(state) for name, state in data["services"].items()})
        if data["drained"]:
            drained[host] = tuple(Drained(str(m["label"]), str(m["by"]), str(m["run"])) for m in data["drained"])
        if data["alerts"] is None:
            unwatched.add(host)
    return Evidence(
        alerts=tuple(alerts),
        units=tuple(units),
        reached=frozenset(reached),
        free=free,
        answers=answers,
        minutes=minutes,
        services=services,
        unwatched=frozenset(unwatched),
        drained=drained,
    )
