"""The rules: each returns its findings for the evidence. The likeliest cause comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rackserve.doctor._alerts import CAUSES, IGNORED, SYMPTOM_WEIGHT
from rackserve.doctor._engines import engines, slow_start, systemd_results
from rackserve.doctor._finding import UP, Finding, of_unit
from rackserve.doctor._services import hung, proxy_refuses, rotation, services, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackserve.doctor._evidence import Evidence

_FULL: Final = 0.05
_MANY: Final = 0.05
_LASTS_MIN: Final = 2
_TOO_MANY_REQUESTS: Final = 429


def diagnose(evidence: Evidence) -> list[Finding]:
    """Return the findings, likeliest first; symptoms only where no cause on their host explains them."""
    causes = [finding for rule in _RULES for finding in rule(evidence)]
    explained = {finding.host for finding in causes}
    symptoms = [finding for finding in _symptoms(evidence) if finding.host not in explained]
    best: dict[tuple[str, str, str], Finding] = {}
    for finding in sorted([*causes, *symptoms], key=lambda one: -one.likelihood):
        best.setdefault((finding.host, finding.instance, finding.cause), finding)
    return list(best.values())


def _disks(evidence: Evidence) -> Iterator[Finding]:
    for (host, mount), share in evidence.free.items():
        if share < _FULL:
            yield Finding(
                "a disk is full", host, "", f"{mount} has {share:.1%} left", CAUSES["DiskFull"][2], 92, "disk-full"
            )


def _edge(evidence: Evidence) -> Iterator[Finding]:
    """The latest answers of the edge."""
    for host, answers in evidence.answers.items():
        total = sum(answers.values())
        limited = answers.get(_TOO_MANY_REQUESTS, 0)
        failed = sum(count for status, count in answers.items() if status >= 500)  # noqa: PLR2004 - HTTP
        minutes = evidence.minutes.get(host, {})
        # `rackserve verify` itself exceeds the limit for a second, to check that it works.
        if limited > _MANY * total and minutes.get(_TOO_MANY_REQUESTS, 0) >= _LASTS_MIN:
            fix = "raise nginx_limit_rate and nginx_limit_burst, or ask that client to send less"
            seen = f"{limited} of the last {total} answers were 429"
            yield Finding("clients are over the limit of the edge", host, "", seen, fix, 74, "edge-limit")
        if failed > _MANY * total and max(minutes.get(status, 0) for status in answers) >= _LASTS_MIN:
            seen = f"{failed} of the last {total} answers were 5xx"
            yield Finding("the edge finds no engine that answers", host, "", seen, "rackserve status", 40, "edge-5xx")


def _drained(evidence: Evidence) -> Iterator[Finding]:
    for unit in evidence.units:
        if unit.drained:
            path = f"/var/lib/rackserve/drained/{unit.instance}"
            fix = f"rm {path} when it may serve"
            yield of_unit(unit, "an operator keeps the instance closed", path, fix, likelihood=85, rule="drained")


def _alerts(evidence: Evidence) -> Iterator[Finding]:
    for alert in evidence.alerts:
        if alert.name in CAUSES:
            weight, cause, fix = CAUSES[alert.name]
            if alert.name == "HostDown" and alert.labels.get("host") in evidence.reached:
                cause, fix = (
                    "Prometheus reaches nothing on the host, and SSH does",
                    "the ports' firewall; rackserve apply",
                )
            instance = alert.labels.get("vllm_instance", "")
            likelihood = weight if alert.state == "firing" else weight - 10
            seen = f"{alert.name}: {alert.summary}"
            yield Finding(cause, alert.labels.get("host", ""), instance, seen, fix, likelihood, alert.name)


def _symptoms(evidence: Evidence) -> Iterator[Finding]:
    for alert in evidence.alerts:
        if alert.name not in CAUSES and alert.name not in IGNORED and alert.state == "firing":
            host, instance = alert.labels.get("host", ""), alert.labels.get("vllm_instance", "")
            fix = alert.runbook or "its rule has no annotation `runbook`; see its expression in Prometheus"
            yield Finding(alert.summary or alert.name, host, instance, alert.name, fix, SYMPTOM_WEIGHT, alert.name)
    for unit in evidence.units:
        if unit.probe not in {*UP, "starting"}:
            seen = f"its probe says {unit.probe}: {unit.probe_detail}"
            fix = f"journalctl -u 'vllm@{unit.instance}.*' -n 100"
            yield of_unit(
                unit,
                f"the instance is {unit.probe}",
                seen,
                fix,
                likelihood=SYMPTOM_WEIGHT - 5,
                rule=f"probe-{unit.probe}",
            )


_RULES: Final[tuple[Callable[[Evidence], Iterator[Finding]], ...]] = (
    engines,
    systemd_results,
    slow_start,
    _disks,
    _edge,
    _drained,
    services,
    watched,
    rotation,
    hung,
    proxy_refuses,
    _alerts,
)
