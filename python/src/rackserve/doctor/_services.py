"""Rules about the services of hosts, and about contradictions between pieces of evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.doctor._alerts import CAUSES
from rackserve.doctor._finding import UP, Finding, of_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackserve.doctor._evidence import Evidence


def services(evidence: Evidence) -> Iterator[Finding]:
    """A required service that does not run; no alert needs to have fired yet."""
    for (host, name), state in evidence.services.items():
        if state not in {"active", "reloading"}:
            fix = f"journalctl -u {name} -n 50; systemctl start {name}; rackserve apply"
            rule = "EdgeDown" if name == "nginx.service" else "service"
            yield Finding(f"{name} does not run", host, "", f"systemd: {state}", fix, 95, rule)


def watched(evidence: Evidence) -> Iterator[Finding]:
    """Without Prometheus alerts are unknown, and the fleet would look healthy."""
    for host in evidence.unwatched:
        seen = "its API did not answer: no alert is known to this diagnosis"
        fix = "journalctl -u prometheus -n 50; df /var/lib/prometheus; rackserve apply"
        yield Finding("Prometheus does not answer", host, "", seen, fix, 94, "prometheus-down")


def rotation(evidence: Evidence) -> Iterator[Finding]:
    """Instances that an operator or a rollout keeps out of rotation at an edge."""
    for edge, drained in evidence.drained.items():
        for label, by, run in drained:
            host, _, instance = label.rpartition(":")
            seen = f"{edge}: /var/lib/rackserve/edge/rotation.json, {label}"
            cause, fix = "an operator drained the instance at the edge", f"rackserve undrain {label}, when it may serve"
            if by == "rollout":
                cause = "a rollout took the instance out of rotation at the edge and has not put it back"
                seen += f", rollout {run}"
                fix = f"run the rollout again, which puts it back; or rackserve undrain --force {label}"
            yield Finding(cause, host, instance, seen, fix, 84, "drained-at-edge")


def hung(evidence: Evidence) -> Iterator[Finding]:
    """The probe detects a hung engine before the alert fires."""
    weight, cause, fix = CAUSES["InstanceHung"]
    for unit in evidence.units:
        if unit.probe == "hung":
            seen = f"its probe: {unit.probe_detail or 'hung'}"
            yield of_unit(unit, cause, seen, fix.replace("NAME", unit.instance), likelihood=weight, rule="InstanceHung")


def proxy_refuses(evidence: Evidence) -> Iterator[Finding]:
    """An instance that answers its own probe, but that Prometheus cannot reach."""
    away = {
        (alert.labels.get("host"), alert.labels.get("vllm_instance"))
        for alert in evidence.alerts
        if alert.name == "VllmInstanceDown"
    }
    for unit in evidence.units:
        if (unit.host, unit.instance) in away and unit.active == "active" and unit.probe in UP and not unit.drained:
            seen = f"VllmInstanceDown, while its probe says {unit.probe}"
            fix = (
                "name Prometheus's and the edge's addresses in vllm_allowed_clients; look at the firewall between them"
            )
            cause = "the instance serves, and its socket proxy refuses Prometheus"
            yield of_unit(unit, cause, seen, fix, likelihood=82, rule="proxy-refuses")
