"""The rules: each returns its findings for the evidence. The likeliest cause comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rackserve.doctor._alerts import CAUSES, IGNORED, SYMPTOM_WEIGHT
from rackserve.doctor._finding import UP, Finding, of_unit
from rackserve.doctor._journal import exit_causes, memory_ran_out, slow_phase
from rackserve.doctor._services import hung, proxy_refuses, rotation, services, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackserve.doctor._evidence import Evidence, UnitEvidence

_FULL: Final = 0.05
_MANY: Final = 0.05
_LASTS_MIN: Final = 2
_SLOW_S: Final = 30.0
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


def _engine_exits(evidence: Evidence) -> Iterator[Finding]:
    """An engine that exited, or does not generate, mostly logged the reason."""
    for unit in evidence.units:
        if not _troubled(unit, evidence):
            continue
        found = exit_causes(unit.journal, newest_start=unit.result == "timeout", loops=_loops(unit, evidence))
        for known, line in found:
            yield of_unit(unit, known.cause, line, known.fix, likelihood=known.weight, rule=known.name)


def _gpu_memory(evidence: Evidence) -> Iterator[Finding]:
    """The fix depends on whether the GPU's memory ran out while serving or at the start."""
    for unit in evidence.units:
        found = memory_ran_out(unit.journal)
        if found and found[1]:
            fix = (
                "lower gpu_memory_utilization by 0.05; then max_num_seqs or max-num-batched-tokens (rackserve capacity)"
            )
            yield of_unit(
                unit, "the GPU's memory ran out while it served", found[0], fix, likelihood=93, rule="oom-mid-traffic"
            )
        elif found:
            fix = "see rackserve capacity; lower max_model_len or gpu_memory_utilization, or use more gpus"
            yield of_unit(
                unit, "the model does not fit the GPU's memory", found[0], fix, likelihood=93, rule="oom-at-start"
            )


def _systemd_results(evidence: Evidence) -> Iterator[Finding]:
    """The result of a unit's exit, from systemd."""
    for unit in evidence.units:
        if unit.result == "oom-kill":
            fix = "weights, KV cache and work space of all instances have to fit the host's memory"
            yield of_unit(
                unit, "the host's memory ran out", "systemd: Result=oom-kill", fix, likelihood=94, rule="host-oom"
            )
        elif unit.result == "timeout":
            fix = "raise vllm_start_timeout, if the journal shows that it was still loading"
            yield of_unit(
                unit,
                "the start took longer than it may",
                "systemd: Result=timeout",
                fix,
                likelihood=60,
                rule="start-timeout",
            )


def _slow_start(evidence: Evidence) -> Iterator[Finding]:
    """A slow start."""
    for unit in evidence.units:
        phase = slow_phase(unit.journal)
        if unit.probe != "starting" or phase is None or 0 < phase[1] < _SLOW_S:
            continue
        cause = f"the start is slow because of {phase[0]}"
        fix = {
            "downloading the model": "serve from the bundle: rackserve apply sets HF_HUB_OFFLINE and the cache",
            "loading the weights": "a faster disk, or a local one; a quantized model",
            "compiling": "keep the engine's cache folder between starts; it is compiled once for each release",
            "capturing CUDA graphs": "this is normal for 10 to 20 s; fewer cudagraph-capture-sizes shorten it",
        }[phase[0]]
        seen = f"{phase[1]:.0f} s" if phase[1] else "its journal shows a download"
        yield of_unit(unit, cause, f"{phase[0]}: {seen}", fix, likelihood=70, rule="slow-start")


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
            fix = f"journalctl -u vllm@{unit.instance} -n 100"
            yield of_unit(
                unit,
                f"the instance is {unit.probe}",
                seen,
                fix,
                likelihood=SYMPTOM_WEIGHT - 5,
                rule=f"probe-{unit.probe}",
            )


def _troubled(unit: UnitEvidence, evidence: Evidence) -> bool:
    """Return whether an engine's latest errors still matter: it does not serve, or restarts in a loop."""
    return unit.active != "active" or unit.probe not in UP or _loops(unit, evidence)


def _loops(unit: UnitEvidence, evidence: Evidence) -> bool:
    place = {"host": unit.host, "vllm_instance": unit.instance}
    return any(a.name == "InstanceRestartLoop" and place.items() <= a.labels.items() for a in evidence.alerts)


_RULES: Final[tuple[Callable[[Evidence], Iterator[Finding]], ...]] = (
    _engine_exits,
    _gpu_memory,
    _systemd_results,
    _slow_start,
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
