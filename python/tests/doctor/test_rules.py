"""Each rule names its cause first where it is, and says nothing on a healthy fleet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rackserve.doctor import Alert, Evidence, UnitEvidence, diagnose, read_evidence
from rackserve.doctor._journal import memory_ran_out, slow_phase

SERVES = ("INFO Loading weights took 1.2 seconds", "INFO Application startup complete.", "INFO 200 OK")
HEALTHY = UnitEvidence("gpu1", "a", journal=SERVES)
ENDED = replace(HEALTHY, active="failed", result="exit-code", restarts=5, probe="failed", probe_detail="gave up")
STARTS = replace(HEALTHY, active="activating", probe="starting", journal=())
FLEET = Evidence(
    alerts=(Alert("Watchdog", "firing", {"severity": "none"}),),
    units=(HEALTHY, replace(HEALTHY, host="gpu2", probe="busy")),
    free={("gpu1", "/"): 0.5},
    answers={"edge1": {200: 990, 429: 5, 502: 5}},
)


def of(unit: UnitEvidence, *alerts: Alert) -> Evidence:
    return Evidence(alerts=alerts, units=(unit,))


def saying(line: str) -> Evidence:
    down = Alert("InstanceFailed", "firing", {"host": "gpu1", "vllm_instance": "a"}, "a was given up")
    return of(replace(ENDED, journal=("INFO starting", line)), down)


def firing(name: str, **labels: str) -> Alert:
    return Alert(name, "firing", {"host": "gpu1", **labels}, f"{name} is seen")


FAULTS = {
    "wrong-flag": saying("api_server.py: error: unrecognized arguments: --swap-space 4"),
    "context-too-long": saying(
        "ValueError: max seq len (8192) is larger than the maximum number of tokens in KV cache"
    ),
    "no-cache-memory": saying("ValueError: No available memory for the cache blocks."),
    "gpu-shared": saying(
        "ValueError: Free memory on device (3.1/139.8 GiB) is less than desired GPU memory utilization"
    ),
    "starts-at-once": saying("AssertionError: Error in memory profiling. Initial free memory 10 GiB, current free 20"),
    "driver-too-old": saying("CUDA driver version is insufficient for CUDA runtime version"),
    "no-kernel-image": saying("CUDA error: no kernel image is available for execution on the device"),
    "glibc": saying("ImportError: /lib/libc.so.6: version `GLIBC_2.38' not found"),
    "model-not-there": saying("huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate snapshot"),
    "disk-full": saying("OSError: [Errno 28] No space left on device"),
    "cache-not-writable": saying("KeyError: 'getpwuid(): uid not found: 61234'"),
    "socket-path": saying('zmq.error.ZMQError: ipc path "/run/x" is longer than 107 characters'),
    "port-taken": saying("OSError: [Errno 98] Address already in use"),
    "oom-mid-traffic": of(replace(ENDED, journal=(*SERVES, "torch.OutOfMemoryError: CUDA out of memory."))),
    "oom-at-start": of(replace(ENDED, journal=("torch.OutOfMemoryError: CUDA out of memory.",))),
    "host-oom": of(replace(ENDED, result="oom-kill"), firing("VllmInstanceDown", vllm_instance="a")),
    "start-timeout": of(replace(ENDED, result="timeout")),
    "slow-start": of(replace(STARTS, journal=("INFO Loading weights took 95.1 seconds",))),
    "edge-limit": Evidence(answers={"edge1": {200: 50, 429: 50}}),
    "edge-5xx": Evidence(answers={"edge1": {200: 50, 503: 50}}),
    "drained": of(replace(HEALTHY, drained=True), firing("VllmInstanceDown", vllm_instance="a")),
    "HostDown": Evidence(alerts=(firing("TargetDown"), firing("HostDown"))),
    "EdgeDown": Evidence(alerts=(firing("EdgeDown"),), answers={"gpu1": {502: 10}}),
    "GpuThrottled": of(HEALTHY, firing("ThroughputHalved", vllm_instance="a"), firing("GpuThrottled", gpu="0")),
    "GpuXid": of(ENDED, firing("VllmInstanceDown", vllm_instance="a"), firing("GpuXid", xid="79")),
    "PrefixHitsCollapsed": of(HEALTHY, firing("FirstTokenBudgetBurns"), firing("PrefixHitsCollapsed")),
    "KvPressure": of(HEALTHY, firing("QueueGrowing"), firing("KvPressure")),
    "probe-failed": of(ENDED),
    "VllmInstanceDown": of(HEALTHY, firing("VllmInstanceDown", vllm_instance="a")),
}


@pytest.mark.parametrize("rule", FAULTS)
def test_the_right_cause_comes_first(rule: str) -> None:
    first, *_ = diagnose(FAULTS[rule])
    assert first.rule == rule
    assert all((first.cause, first.evidence, first.fix, first.likelihood > 0))


def test_nothing_is_found_on_a_healthy_fleet() -> None:
    assert diagnose(FLEET) == []


def test_a_line_of_long_ago_does_not_count_while_the_instance_serves() -> None:
    assert diagnose(of(replace(HEALTHY, journal=("OSError: [Errno 98] Address already in use", *SERVES)))) == []


def test_what_an_engine_said_counts_when_it_ends_again_and_again() -> None:
    loops = firing("InstanceRestartLoop", vllm_instance="a")
    first, *_ = diagnose(of(replace(HEALTHY, journal=("KeyError: 'getpwuid(): uid not found: 1'", *SERVES)), loops))
    assert first.rule == "cache-not-writable"


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
    full = Evidence(units=(), free={("gpu1", "/"): 0.01}, alerts=(firing("DiskFull"), firing("ClockOff")))
    assert [finding.rule for finding in diagnose(full)] == ["disk-full", "ClockOff"]


def test_a_host_that_was_reached_is_not_off() -> None:
    (off,) = diagnose(Evidence(alerts=(firing("HostDown"),)))
    (cut,) = diagnose(Evidence(alerts=(firing("HostDown"),), reached=frozenset({"gpu1"})))
    assert off.cause == "the host is off or cut from the network"
    assert cut.cause == "Prometheus reaches nothing on the host, and SSH does"


def test_an_alert_that_is_about_to_fire_is_less_likely() -> None:
    (pending,) = diagnose(Evidence(alerts=(Alert("ClockOff", "pending", {"host": "gpu1"}),)))
    (fires,) = diagnose(Evidence(alerts=(firing("ClockOff"),)))
    assert pending.likelihood < fires.likelihood


def test_memory_that_ran_out_is_told_from_memory_that_never_was() -> None:
    assert memory_ran_out(SERVES) is None
    assert memory_ran_out(("CUDA out of memory", *SERVES)) == ("CUDA out of memory", False)


@pytest.mark.parametrize(
    ("journal", "phase"),
    [
        ((), None),
        (("Loading weights took 3.0 seconds", "torch.compile takes 40.5 s in total"), ("compiling", 40.5)),
        (("Fetching 12 files: 0%",), ("downloading the model", 0.0)),
    ],
)
def test_the_longest_part_of_a_start(journal: tuple[str, ...], phase: tuple[str, float] | None) -> None:
    assert slow_phase(journal) == phase


def test_what_a_host_brings_is_read() -> None:
    lists = {"instance": "a", "active": "active", "result": "success", "restarts": 0, "journal": ["one"]}
    unit = {**lists, "probe": "ready", "probe_detail": "", "drained": False}
    alert = {"state": "firing", "labels": {"alertname": "X"}, "annotations": {"summary": "s"}}
    found = read_evidence([("h", {"alerts": [alert], "units": [unit], "free": {"/": 0.5}, "answers": {"200": 3}})])
    assert found == Evidence(
        (Alert("X", "firing", {"alertname": "X"}, "s"),),
        (UnitEvidence("h", "a", journal=("one",)),),
        frozenset({"h"}),
        {("h", "/"): 0.5},
        {"h": {200: 3}},
    )
