"""Evidence from a run's events."""

from __future__ import annotations

from pathlib import Path

from rackserve.checks import CheckResult
from rackserve.checks.evidence import EvidenceCollector, host_results, read_evidence
from rackserve.run import EventKind, RunEvent, RunResult, TaskFailure

EDGE = {"port": 443, "server_name": "n", "ca_file": "~/ca.crt", "model": "m", "expect": "", "rate": 1, "burst": 2}


def run_result(failures: tuple[TaskFailure, ...] = (), unreachable: tuple[TaskFailure, ...] = ()) -> RunResult:
    return RunResult(2, "failed", (), failures, unreachable, Path("/record"))


def test_evidence_is_kept_from_failed_tasks_too() -> None:
    collector = EvidenceCollector()
    data = {"checks": [{"name": "a", "ok": False, "detail": "why"}], "facts": {"address": "10.0.0.1", "edge": EDGE}}
    collector.take(RunEvent(EventKind.TASK, task="x"))
    collector.take(RunEvent(EventKind.FAILED, host="edge1", data=data))
    found = collector.by_host["edge1"]
    assert found.results == (CheckResult("a", "edge1", ok=False, detail="why"),)
    assert found.edge is not None
    assert (found.edge.address, found.edge.ca_file) == ("10.0.0.1", Path.home() / "ca.crt")


def test_an_entry_of_another_shape_is_a_failed_check() -> None:
    for entry in ("text", {"name": "a"}, {"name": "a", "ok": "true"}):
        assert [result.ok for result in read_evidence("h", {"checks": [entry]}).results] == [False]


def test_a_host_without_evidence_fails_with_the_reason() -> None:
    result = run_result(
        failures=(TaskFailure("gpu1", "t", "no python"),),
        unreachable=(TaskFailure("gpu2", "t", "via ssh: ssh: connect to host 10.0.0.2 port 22: timed out"),),
    )
    found = {check.host: check for check in host_results(result, {}, ["gpu1", "gpu2", "gpu3"])}
    assert not any(check.ok for check in found.values())
    assert found["gpu1"].detail == "no python"
    assert "cannot reach gpu2 (10.0.0.2) over SSH" in found["gpu2"].detail
    assert found["gpu3"].detail == "the host gave no evidence"
