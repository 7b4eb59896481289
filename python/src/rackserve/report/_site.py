"""The report's tables of hosts and instances, from the evidence of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rackserve.checks.evidence import EvidenceCollector
from rackserve.gpu import GpuFacts
from rackserve.report._types import HostRow, InstanceRow
from rackserve.vllm import parse_instances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.run import FleetHost, RunEvent

_ROLES = {"vllm_hosts": "serves models", "edge_hosts": "edge", "monitoring_hosts": "monitoring"}


@dataclass
class SiteCollector:
    """Takes the events of playbooks/verify_fleet.yml with the tags verify, status and report, by what they carry."""

    verdicts: EvidenceCollector = field(default_factory=EvidenceCollector)
    states: EvidenceCollector = field(default_factory=EvidenceCollector)
    installed: dict[str, Mapping[str, object]] = field(default_factory=dict)
    gpus: dict[str, GpuFacts] = field(default_factory=dict)

    def take(self, event: RunEvent) -> None:
        """Keep the evidence in an event."""
        checks = event.data.get("checks")
        if isinstance(checks, list):
            names = [str(check.get("name")) for check in checks if isinstance(check, Mapping)]
            is_state = all(_is_state(name) for name in names) if names else event.host not in self.states.by_host
            (self.states if is_state else self.verdicts).take(event)
        elif "floor" in event.data and "distribution" in event.data:
            self.installed[event.host] = event.data
        elif "gpus" in event.data and "driver" in event.data:
            self.gpus[event.host] = GpuFacts.of(dict(event.data))

    def facts(self, host: str) -> Mapping[str, Any]:
        """Return the serving settings of a host."""
        for collector in (self.verdicts, self.states):
            if host in collector.by_host:
                return collector.by_host[host].facts
        return {}

    def serves(self, host: str) -> Mapping[str, Any]:
        """Return instances, runtime and cpu_kvcache_gib of a host that serves models; empty for others."""
        found = self.facts(host).get("serves")
        return found if isinstance(found, Mapping) else {}


def _is_state(name: str) -> bool:
    return name.startswith("status ") or name == "rotation"


def describe_hosts(hosts: Sequence[FleetHost], seen: SiteCollector) -> tuple[HostRow, ...]:
    """Return a row for every host; one that gave nothing has only its name and roles."""
    return tuple(_host(host, seen) for host in hosts)


def _host(host: FleetHost, seen: SiteCollector) -> HostRow:
    installed: Mapping[str, Any] = seen.installed.get(host.name, {})
    floor: Mapping[str, Any] = installed.get("floor") or {}
    gpus = seen.gpus.get(host.name)
    return HostRow(
        name=host.name,
        address=str(seen.facts(host.name).get("address") or host.address or ""),
        roles=tuple(_ROLES[group] for group in host.groups),
        system=f"{installed['distribution']} {installed['release']}, {installed['architecture']}" if installed else "",
        bundle=", ".join(f"{name} version {entry.get('version')}" for name, entry in sorted(floor.items())),
        releases=tuple(installed.get("releases") or ()),
        gpus=tuple(gpu.name for gpu in gpus.gpus) if gpus else (),
        driver=(gpus.driver.version or "") if gpus else "",
    )


def describe_instances(hosts: Sequence[FleetHost], seen: SiteCollector) -> tuple[InstanceRow, ...]:
    """Return a row for every instance of the inventory, with the state that its host reported."""
    rows = []
    for host in hosts:
        evidence = seen.states.by_host.get(host.name)
        states = {str(row.get("instance")): row for row in evidence.rows} if evidence else {}
        for instance in parse_instances(seen.serves(host.name).get("instances", [])):
            state = states.get(instance.name, {})
            rows.append(
                InstanceRow(
                    host=host.name,
                    name=instance.name,
                    model=instance.model.repo,
                    revision=instance.model.revision,
                    served_names=(*instance.served_names, *(adapter.name for adapter in instance.lora)),
                    device=str(state.get("device") or ""),
                    release=str(state.get("release") or ""),
                    state=str(state.get("state") or "unknown"),
                    health=str(state.get("health") or "unknown"),
                    max_model_len=instance.max_model_len,
                    max_num_seqs=instance.max_num_seqs,
                )
            )
    return tuple(rows)
