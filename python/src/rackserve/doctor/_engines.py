"""Rules about engines: why one ended, does not get through its start, or is slow."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rackserve.doctor import _phases
from rackserve.doctor._failures import Ended
from rackserve.doctor._finding import UP, Finding, of_unit
from rackserve.doctor._journal import last_ended, line_naming, named_by, starts_of
from rackserve.doctor._phases import slow_phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackserve.doctor._evidence import Evidence, UnitEvidence
    from rackserve.doctor._journal import Start

_SLOW_S: Final = 30.0
_UNKNOWN: Final = 55
# Above that of the timeout: an engine may stand still after one of its processes failed.
_UNKNOWN_IN_TIME: Final = 62
_GUESSED: Final = 50
_WORDLESS: Final = 30
_SLOW_FIXES: Final = {
    _phases.DOWNLOAD: "serve from the bundle: rackserve apply sets HF_HUB_OFFLINE and the cache",
    _phases.WEIGHTS: "a faster disk, or a local one; a quantized model",
    _phases.COMPILE: "keep the engine's cache folder between starts; it is compiled once for each release",
    _phases.PROFILE: "lower max-num-batched-tokens; a model with images: fewer in limit-mm-per-prompt",
    _phases.GRAPHS: "this is normal for 10 to 20 s; fewer cudagraph-capture-sizes shorten it",
}
_TIMEOUT_FIXES: Final = {
    _phases.NCCL: "its GPUs do not reach each other: nvidia-smi topo -m; PCIe ACS and IOMMU off between GPUs without"
    " NVLink;"
    " NCCL_P2P_DISABLE=1 in a drop-in in vllm@NAME.service.d proves it",
    _phases.WEIGHTS: "raise vllm_start_timeout, or bring the weights to a faster disk",
    _phases.COMPILE: "raise vllm_start_timeout for the first start: later ones find the compiled graphs",
}


def engines(evidence: Evidence) -> Iterator[Finding]:
    """Why an engine that does not serve ended, in its own words; its last start only."""
    for unit in evidence.units:
        if not _troubled(unit, evidence):
            continue
        timeout = unit.result == "timeout"
        starts = _starts(unit)
        ended = last_ended(starts, again=unit.restarts > 0, loops=_loops(unit, evidence), newest=timeout)
        if ended is None:
            yield from _wordless(unit, starts)
            continue
        causes = named_by(ended)
        for cause, failure in causes:
            fix = cause.fix.replace("NAME", unit.instance)
            yield of_unit(unit, cause.cause, line_naming(cause, failure), fix, likelihood=cause.weight, rule=cause.name)
        if not causes:
            root = ended.failures[0].root()
            yield of_unit(
                unit,
                f"the engine failed while {ended.phase}" if ended.phase else "the engine failed",
                root.shown(),
                f"the line is vLLM's own; journalctl -u 'vllm@{unit.instance}.*' has its traceback; "
                f"{_hint(ended.phase)}",
                likelihood=_UNKNOWN_IN_TIME if timeout else _UNKNOWN,
                rule="engine-error",
            )


def systemd_results(evidence: Evidence) -> Iterator[Finding]:
    """The result of a unit's exit, from systemd."""
    for unit in evidence.units:
        if not _troubled(unit, evidence):
            continue
        if unit.result == "oom-kill":
            fix = "weights, KV cache and work space of all instances have to fit the host's memory"
            yield of_unit(
                unit, "the host's memory ran out", "systemd: Result=oom-kill", fix, likelihood=94, rule="host-oom"
            )
        elif unit.result == "timeout":
            yield _timeout(unit)


def slow_start(evidence: Evidence) -> Iterator[Finding]:
    """A slow start."""
    for unit in evidence.units:
        starts = _starts(unit)
        phase = slow_phase(starts[-1].lines) if unit.probe == "starting" and starts else None
        if phase is None or 0 < phase[1] < _SLOW_S:
            continue
        seen = f"{phase[0]}: {phase[1]:.0f} s" if phase[1] else "its journal shows a download"
        cause = f"the start is slow because of {phase[0]}"
        yield of_unit(unit, cause, seen, _SLOW_FIXES[phase[0]], likelihood=70, rule="slow-start")


def _timeout(unit: UnitEvidence) -> Finding:
    starts = _starts(unit)
    phase = starts[-1].phase if starts else None
    fix = _TIMEOUT_FIXES.get(phase or "", "raise vllm_start_timeout, if the journal shows that it was still loading")
    last = next((line.text.strip() for line in reversed(starts[-1].lines) if line.source), "") if starts else ""
    seen = "systemd: Result=timeout"
    told = ": its API was open, and no token came" if phase == _phases.SERVING else f", while {phase}" if phase else ""
    return of_unit(
        unit,
        f"the start took longer than it may{told}",
        f"{seen}; the engine's last line: {last}" if last else seen,
        fix.replace("NAME", unit.instance),
        likelihood=60,
        rule="start-timeout",
    )


def _wordless(unit: UnitEvidence, starts: Sequence[Start]) -> Iterator[Finding]:
    """An engine that ended in its start without an error that is one: its last words, if it has any."""
    last = starts[-1] if starts else None
    stopped = unit.active == "inactive" and unit.result == "success"
    if last is None or last.served or stopped or unit.result in {"timeout", "oom-kill"}:
        return
    ended = last.over or unit.active in {"failed", "inactive"}
    said = last.last_words() if ended or unit.restarts else None
    if said is None:
        return
    phase = last.phase or _phases.IMPORTS
    named = named_by(Ended((said,), phase))
    for cause, failure in named:
        fix = cause.fix.replace("NAME", unit.instance)
        yield of_unit(unit, cause.cause, line_naming(cause, failure), fix, likelihood=_GUESSED, rule=cause.name)
    if ended and not named:
        yield of_unit(
            unit,
            f"the engine ended while {phase}, without an error that is known",
            said.shown(),
            f"systemctl status 'vllm@{unit.instance}.*'; journalctl -u 'vllm@{unit.instance}.*' -n 100",
            likelihood=_WORDLESS,
            rule="engine-ended",
        )


def _hint(phase: str | None) -> str:
    """Return what is worth trying where the failure itself is not known."""
    return {
        _phases.IMPORTS: "if it names a package, remove the release's folder in /opt/vllm/releases; rackserve apply",
        _phases.CONFIG: "compare the instance's keys and the model's config.json with what the line names",
        _phases.NCCL: "look at nvidia-smi topo -m and df -h /dev/shm",
        _phases.WEIGHTS: "rackserve apply compares the model's files; then ask whether this release has the model",
        _phases.COMPILE: "empty /var/cache/vllm/ of the instance once; enforce-eager compiles nothing",
        _phases.PROFILE: "lower max-num-batched-tokens or max_num_seqs and see whether it goes",
        _phases.GRAPHS: "enforce-eager captures nothing and shows whether it is that",
        _phases.SERVING: "see which request came last, and whether it comes again",
    }.get(phase or "", "search for the line in vLLM's issues")


@lru_cache(maxsize=64)
def _starts(unit: UnitEvidence) -> tuple[Start, ...]:
    """Return the starts of a unit; three rules ask for them."""
    return tuple(starts_of(unit.journal, unit.begins))


def _troubled(unit: UnitEvidence, evidence: Evidence) -> bool:
    """Return whether an engine's latest errors matter: it does not serve, or restarts in a loop."""
    return unit.active != "active" or unit.probe not in UP or _loops(unit, evidence)


def _loops(unit: UnitEvidence, evidence: Evidence) -> bool:
    place = {"host": unit.host, "vllm_instance": unit.instance}
    return any(a.name == "InstanceRestartLoop" and place.items() <= a.labels.items() for a in evidence.alerts)
