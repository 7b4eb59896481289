"""Each rule names its cause first where it is, and says nothing on a healthy fleet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rackserve.doctor import Alert, Drained, Evidence, UnitEvidence, diagnose, read_evidence
from rackserve.doctor._lines import line_of
from rackserve.doctor._phases import slow_phase

JOURNALS = Path(__file__).parents[1] / "data/journals"
SERVES = ("INFO Loading weights took 1.2 seconds", "INFO Application startup complete.", "INFO 200 OK")
HEALTHY = UnitEvidence("gpu1", "a", journal=SERVES)
ENDED = replace(HEALTHY, active="failed", result="exit-code", restarts=5, probe="failed", probe_detail="gave up")
STARTS = replace(HEALTHY, active="activating", probe="starting", journal=())
FLEET = Evidence(
    alerts=(Alert("Watchdog", "firing", {"severity": "none"}),),
    units=(HEALTHY, replace(HEALTHY, host="gpu2", probe="busy")),
    free={("gpu1", "/"): 0.5},
    answers={"edge1": {200: 990, 429: 5, 502: 5}},
    minutes={"edge1": {200: 10, 429: 3, 502: 3}},
    services={("edge1", "nginx.service"): "active"},
)


def of(unit: UnitEvidence, *alerts: Alert) -> Evidence:
    return Evidence(alerts=alerts, units=(unit,))


def journal(line: str) -> Evidence:
    down = Alert("InstanceFailed", "firing", {"host": "gpu1", "vllm_instance": "a"}, "a was given up")
    return of(replace(ENDED, journal=("INFO starting", line)), down)


def firing(name: str, **labels: str) -> Alert:
    return Alert(name, "firing", {"host": "gpu1", **labels}, f"{name} is seen")


FAULTS = {
    "wrong-flag": journal("api_server.py: error: unrecognized arguments: --swap-space 4"),
    "context-too-long": journal(
        "ValueError: max seq len (8192) is larger than the maximum number of tokens in KV cache"
    ),
    "no-cache-memory": journal("ValueError: No available memory for the cache blocks."),
    "gpu-shared": journal(
        "ValueError: Free memory on device (3.1/139.8 GiB) is less than desired GPU memory utilization"
    ),
    "concurrent-starts": journal(
        "AssertionError: Error in memory profiling. Initial free memory 10 GiB, current free 20"
    ),
    "driver-too-old": journal("CUDA driver version is insufficient for CUDA runtime version"),
    "no-kernel-image": journal("CUDA error: no kernel image is available for execution on the device"),
    "glibc": journal("ImportError: /lib/libc.so.6: version `GLIBC_2.38' not found"),
    "model-missing": journal("huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate snapshot"),
    "weights-corrupt": journal("SafetensorError: Error while deserializing header: header too large"),
    "killed": journal("vllm@a.service: Main process exited, code=killed, status=9/KILL"),
    "disk-full": journal("OSError: [Errno 28] No space left on device"),
    "cache-not-writable": journal("KeyError: 'getpwuid(): uid not found: 61234'"),
    "socket-path": journal('zmq.error.ZMQError: ipc path "/run/x" is longer than 107 characters'),
    "port-in-use": journal("OSError: [Errno 98] Address already in use"),
    "oom-mid-traffic": of(replace(ENDED, journal=(*SERVES, "torch.OutOfMemoryError: CUDA out of memory."))),
    "oom-at-start": of(replace(ENDED, journal=("torch.OutOfMemoryError: CUDA out of memory.",))),
    "host-oom": of(replace(ENDED, result="oom-kill"), firing("VllmInstanceDown", vllm_instance="a")),
    "start-timeout": of(replace(ENDED, result="timeout")),
    "slow-start": of(replace(STARTS, journal=("INFO Loading weights took 95.1 seconds",))),
    "edge-limit": Evidence(answers={"edge1": {200: 50, 429: 50}}, minutes={"edge1": {200: 9, 429: 4}}),
    "edge-5xx": Evidence(answers={"edge1": {200: 50, 503: 50}}, minutes={"edge1": {200: 9, 503: 4}}),
    "prometheus-down": Evidence(unwatched=frozenset({"edge1"})),
    "service": Evidence(
        services={("gpu1", "prometheus-node-exporter.service"): "failed"}, alerts=(firing("TargetDown"),)
    ),
    "drained-at-edge": Evidence(
        units=(HEALTHY,), drained={"edge1": (Drained("gpu1:a"),)}, alerts=(firing("QueueGrowing"),)
    ),
    "InstanceHung": of(replace(HEALTHY, probe="hung"), firing("VllmInstanceDown", vllm_instance="a")),
    "proxy-refuses": of(HEALTHY, firing("VllmInstanceDown", vllm_instance="a")),
    "drained": of(replace(HEALTHY, drained=True), firing("VllmInstanceDown", vllm_instance="a")),
    "HostDown": Evidence(alerts=(firing("TargetDown"), firing("HostDown"))),
    "EdgeDown": Evidence(services={("edge1", "nginx.service"): "inactive"}, answers={"edge1": {502: 10}}),
    "GpuThrottled": of(HEALTHY, firing("ThroughputHalved", vllm_instance="a"), firing("GpuThrottled", gpu="0")),
    "GpuXid": of(ENDED, firing("VllmInstanceDown", vllm_instance="a"), firing("GpuXid", xid="79")),
    "PrefixHitsCollapsed": of(HEALTHY, firing("FirstTokenBudgetBurn"), firing("PrefixHitsCollapsed")),
    "KvPressure": of(HEALTHY, firing("QueueGrowing"), firing("KvPressure")),
    "probe-failed": of(ENDED),
    "VllmInstanceDown": of(replace(HEALTHY, probe="unknown"), firing("VllmInstanceDown", vllm_instance="a")),
}


@pytest.mark.parametrize("journal", sorted(JOURNALS.glob("*.txt")), ids=lambda path: path.stem)
def test_real_journals_of_vllm_lead_to_their_cause(journal: Path) -> None:
    """Journals of vLLM 0.32.0 (CPU) that was started with the fault that the file is named after."""
    lines = tuple(journal.read_text(encoding="utf-8").splitlines())
    first, *_ = diagnose(of(replace(ENDED, journal=lines)))
    assert first.rule == journal.stem


@pytest.mark.parametrize("rule", FAULTS)
def test_the_right_cause_comes_first(rule: str) -> None:
    first, *_ = diagnose(FAULTS[rule])
    assert first.rule == rule
    assert all((first.cause, first.evidence, first.fix, first.likelihood > 0))


def test_nothing_is_found_on_a_healthy_fleet() -> None:
    assert diagnose(FLEET) == []


def test_going_over_the_limit_for_a_moment_as_verify_does_is_no_finding() -> None:
    moment = Evidence(answers={"edge1": {200: 50, 429: 50}}, minutes={"edge1": {200: 9, 429: 1}})
    assert diagnose(moment) == []


def test_a_line_of_long_ago_does_not_count_while_the_instance_serves() -> None:
    assert diagnose(of(replace(HEALTHY, journal=("OSError: [Errno 98] Address already in use", *SERVES)))) == []


def test_an_error_of_an_earlier_start_does_not_count_when_the_last_start_has_one() -> None:
    begins = "Starting vLLM instance a..."
    journal = (
        begins,
        "error: unrecognized arguments: --x",
        begins,
        "OSError: [Errno 98] Address already in use",
        begins,
    )
    assert [finding.rule for finding in diagnose(of(replace(ENDED, journal=journal)))] == ["port-in-use"]


@pytest.mark.parametrize(("result", "rule"), [("timeout", "start-timeout"), ("exit-code", "port-in-use")])
def test_an_error_of_an_earlier_start_is_over_once_the_newest_timed_out(result: str, rule: str) -> None:
    begins = "Starting vLLM instance a..."
    journal = (begins, "OSError: [Errno 98] Address already in use", begins, "start operation timed out. Terminating.")
    assert diagnose(of(replace(ENDED, result=result, journal=journal)))[0].rule == rule


@pytest.mark.parametrize(
    ("later", "restarts", "rule"),
    [
        (SERVES, 0, "InstanceHung"),
        (SERVES, 3, "InstanceHung"),
        (("INFO starting",), 0, "InstanceHung"),
        (("INFO starting",), 3, "wrong-flag"),
    ],
    ids=["it served", "it served at last", "somebody started it anew", "systemd tries again"],
)
def test_an_error_counts_in_the_next_start_only_while_systemd_tries_again(
    later: tuple[str, ...], restarts: int, rule: str
) -> None:
    begins = "Starting vLLM instance a..."
    journal = (begins, "error: unrecognized arguments: --x", begins, *later)
    assert diagnose(of(replace(HEALTHY, probe="hung", restarts=restarts, journal=journal)))[0].rule == rule


def test_an_error_of_two_starts_ago_is_over() -> None:
    begins = "Starting vLLM instance a..."
    journal = (begins, "error: unrecognized arguments: --x", begins, "INFO one", begins, "INFO two")
    assert [one.rule for one in diagnose(of(replace(ENDED, journal=journal)))] == ["probe-failed"]


def test_an_error_counts_in_a_restart_loop() -> None:
    loops = firing("InstanceRestartLoop", vllm_instance="a")
    journal = (*SERVES, "KeyError: 'getpwuid(): uid not found: 1'", "Starting vLLM instance a...", *SERVES)
    first, *_ = diagnose(of(replace(HEALTHY, journal=journal), loops))
    assert first.rule == "cache-not-writable"


@pytest.mark.parametrize("unit", [HEALTHY, replace(HEALTHY, probe="busy")], ids=["ready", "busy"])
@pytest.mark.parametrize("result", ["oom-kill", "timeout"])
def test_a_ready_instance_has_no_finding_whatever_its_journal_holds(unit: UnitEvidence, result: str) -> None:
    """Row 23: the memory that ran out in an earlier start is no finding of one that serves."""
    begins = "Starting vLLM instance a..."
    journal = (begins, "torch.OutOfMemoryError: CUDA out of memory.", begins, *SERVES)
    assert diagnose(of(replace(unit, result=result, journal=journal))) == []
    assert diagnose(of(replace(unit, journal=(*SERVES, "torch.OutOfMemoryError: CUDA out of memory.")))) == []


def test_a_fix_names_the_instance() -> None:
    """Row 19: what an operator can do about a neighbour that freed memory, beside a start."""
    first, *_ = diagnose(FAULTS["concurrent-starts"])
    assert "systemctl restart 'vllm@a.*'" in first.fix
    assert "kv-cache-memory-bytes" in first.fix


@pytest.mark.parametrize(
    "line",
    [
        "pynvml.NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch.",
        "RuntimeError: Failed to initialize NVML: Driver/library version mismatch",
        "RuntimeError: CUDA error: system has unsupported display driver / cuda driver combination",
    ],
)
def test_each_wording_of_a_driver_of_two_versions_leads_to_a_boot(line: str) -> None:
    """Row 15."""
    first, *_ = diagnose(journal(line))
    assert (first.rule, first.fix.startswith("boot the host")) == ("driver-mismatch", True)


@pytest.mark.parametrize(
    ("lines", "phase", "fix"),
    [
        (("INFO 11-11 12:33:12 [pynccl.py:103] vLLM is using nccl==2.27.3",), "while setting up NCCL", "topo -m"),
        (("INFO 11-11 12:33:12 [m.py:1] Starting to load model x",), "while loading the weights", "faster disk"),
        (("INFO:     Application startup complete.",), "no token came", "vllm_start_timeout"),
        (("nothing known",), "the start took longer than it may", "still loading"),
    ],
)
def test_a_start_that_ran_out_of_time_names_its_phase(lines: tuple[str, ...], phase: str, fix: str) -> None:
    """Row 21: a hang in NCCL."""
    (first, *_) = diagnose(of(replace(ENDED, result="timeout", journal=lines)))
    assert (first.rule, phase in first.cause, fix in first.fix) == ("start-timeout", True, True)


def test_an_engine_that_stood_still_after_an_unknown_error_shows_it_before_the_timeout() -> None:
    ends = ("vllm@a.service: start operation timed out. Terminating.", "KeyError: 'said while it is ended'")
    journal = ("(Worker pid=7) ERROR 11-30 10:00:00 [m.py:1] KeyError: 'router'", *ends)
    found = diagnose(of(replace(ENDED, result="timeout", journal=journal)))
    assert [one.rule for one in found] == ["engine-error", "start-timeout"]
    assert found[0].evidence == "KeyError: 'router'"


@pytest.mark.parametrize(
    ("words", "state", "rules"),
    [
        ("Failed to initialize NVML: NVML/RM version mismatch", {}, ["driver-mismatch"]),
        ("Failed to initialize NVML: NVML/RM version mismatch", {"active": "activating"}, ["driver-mismatch"]),
        ("zorp is not blonk", {}, ["engine-ended"]),
        ("zorp is not blonk", {"active": "activating"}, ["probe-failed"]),
        ("zorp is not blonk", {"active": "inactive", "result": "success"}, ["probe-failed"]),
    ],
    ids=["known", "known, and tried again", "unknown", "unknown of a start that goes on", "stopped"],
)
def test_last_words_without_an_error_are_told_of_an_engine_that_ended(
    words: str, state: dict[str, str], rules: list[str]
) -> None:
    """Row 15: a unit that was started 269 times."""
    unit: Any = replace(ENDED, journal=("INFO 11-30 10:00:00 [a.py:1] up", words), **state)  # type: ignore[arg-type]
    assert [one.rule for one in diagnose(of(unit))] == rules


def test_what_was_stopped_by_somebody_is_no_failure() -> None:
    said = ("asyncio.exceptions.CancelledError", "vllm@a.service: Deactivated successfully.")
    stopped = (*SERVES, "Stopping vLLM instance a...", "Traceback (most recent call last):", *said)
    unit = replace(HEALTHY, active="inactive", probe="failed", journal=stopped)
    assert [one.rule for one in diagnose(of(unit))] == ["probe-failed"]


@pytest.mark.parametrize(
    "unit",
    [
        replace(STARTS, journal=("INFO Loading weights took 2.0 seconds", "INFO torch.compile takes 9.5 s in total")),
        replace(HEALTHY, journal=("INFO Loading weights took 95.1 seconds", *SERVES)),
    ],
    ids=["a quick start", "a slow one that is over"],
)
def test_a_start_is_slow_only_while_it_lasts_and_takes_long(unit: UnitEvidence) -> None:
    assert diagnose(of(unit)) == []


def test_the_likeliest_comes_first_and_nothing_twice() -> None:
    full = Evidence(units=(), free={("gpu1", "/"): 0.01}, alerts=(firing("DiskFull"), firing("ClockSkew")))
    assert [finding.rule for finding in diagnose(full)] == ["disk-full", "ClockSkew"]


def test_a_host_that_was_reached_is_not_off() -> None:
    (off,) = diagnose(Evidence(alerts=(firing("HostDown"),)))
    (cut,) = diagnose(Evidence(alerts=(firing("HostDown"),), reached=frozenset({"gpu1"})))
    assert off.cause == "the host is off or cut from the network"
    assert cut.cause == "Prometheus reaches nothing on the host, and SSH does"


def test_an_alert_that_is_about_to_fire_is_less_likely() -> None:
    (pending,) = diagnose(Evidence(alerts=(Alert("ClockSkew", "pending", {"host": "gpu1"}),)))
    (fires,) = diagnose(Evidence(alerts=(firing("ClockSkew"),)))
    assert pending.likelihood < fires.likelihood


@pytest.mark.parametrize(("runbook", "fix"), [("wiki#x", "wiki#x"), ("", "no annotation `runbook`")])
def test_the_fix_of_a_sites_own_alert_is_its_runbook(runbook: str, fix: str) -> None:
    (found,) = diagnose(Evidence(alerts=(Alert("RackDoorOpen", "firing", {"host": "gpu1"}, "door", runbook),)))
    assert fix in found.fix


@pytest.mark.parametrize(
    ("journal", "phase"),
    [
        ((), None),
        (("Loading weights took 3.0 seconds", "torch.compile takes 40.5 s in total"), ("compiling", 40.5)),
        (("Fetching 12 files: 0%",), ("downloading the model", 0.0)),
        (
            ("Fetching 4 files: 100%|####| 4/4 [00:00<00:00, 9000it/s]", "Loading weights took 141.2 seconds"),
            ("loading the weights", 141.2),
        ),
        (("Fetching 4 files: 100%|####| 4/4 [00:00<00:00, 9000it/s]",), None),
        (("Fetching 4 files:   0%|    | 0/4 [00:00<?, ?it/s]\rFetching 4 files: 100%|####| 4/4",), None),
        (("Fetching 4 files:  25%|#   | 1/4 [01:20<04:00, 80s/it]",), ("downloading the model", 80.0)),
        (("Time spent downloading weights for m: 321.5 seconds",), ("downloading the model", 321.5)),
        (
            ("Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:47<02:21, 47.1s/it]",),
            ("loading the weights", 47.0),
        ),
        (("Model loading took 14.9 GiB memory and 88.5 seconds",), ("loading the weights", 88.5)),
    ],
)
def test_the_longest_part_of_a_start(journal: tuple[str, ...], phase: tuple[str, float] | None) -> None:
    """Row 24: files that are there already are "fetched" at once, which is no download."""
    assert slow_phase([line_of(line) for line in journal]) == phase


FIXES = {
    "operator": "rackserve undrain gpu1:a, when it may serve",
    "rollout": "run the rollout again, which puts it back; or rackserve undrain --force gpu1:a",
}


def test_who_took_an_instance_out_of_rotation_decides_what_to_do() -> None:
    found = {by: diagnose(Evidence(drained={"edge1": (Drained("gpu1:a", by, "r1"),)}))[0] for by in FIXES}
    assert {by: finding.fix for by, finding in found.items()} == FIXES
    assert found["rollout"].evidence == "edge1: /var/lib/rackserve/edge/rotation.json, gpu1:a, rollout r1"
    assert (found["rollout"].host, found["rollout"].instance) == ("gpu1", "a")


def test_what_a_host_brings_is_read() -> None:
    lists = {"instance": "a", "active": "active", "result": "success", "restarts": 0, "journal": ["one"], "begins": [0]}
    unit = {**lists, "probe": "ready", "probe_detail": "", "drained": False}
    alert = {"state": "firing", "labels": {"alertname": "X"}, "annotations": {"summary": "s", "runbook": "wiki#x"}}
    mark = {"label": "g:a", "by": "rollout", "run": "r1", "weight": 0, "since": "2027-01-31T12:00:00Z"}
    edge = {"answers": {"200": {"count": 3, "minutes": 2}}, "services": {"nginx.service": "active"}, "drained": [mark]}
    found = read_evidence([("h", {"alerts": [alert], "units": [unit], "free": {"/": 0.5}, **edge})])
    assert found == Evidence(
        (Alert("X", "firing", {"alertname": "X"}, "s", "wiki#x"),),
        (UnitEvidence("h", "a", journal=("one",), begins=(0,)),),
        frozenset({"h"}),
        {("h", "/"): 0.5},
        {"h": {200: 3}},
        {"h": {200: 2}},
        {("h", "nginx.service"): "active"},
        frozenset(),
        {"h": (Drained("g:a", "rollout", "r1"),)},
    )


def test_a_prometheus_that_does_not_answer_is_no_fleet_without_alerts() -> None:
    nothing: dict[str, Any] = {"alerts": None, "units": [], "free": {}, "answers": {}, "services": {}, "drained": []}
    assert [finding.rule for finding in diagnose(read_evidence([("edge1", nothing)]))] == ["prometheus-down"]
