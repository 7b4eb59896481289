"""Real failure texts of public reports lead to their cause; journals of engines that serve lead to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rackserve.doctor import Evidence, UnitEvidence, diagnose

DATA = Path(__file__).parents[1] / "data/failures"
SEEN, HELD_OUT, HEALTHY = (
    list(yaml.safe_load((DATA / f"{name}.yml").read_text(encoding="utf-8"))) for name in ("seen", "held_out", "healthy")
)
# A shell of another language says that a process crashed; in a unit systemd says it, in English.
MISSED = {"vllm#8321"}
STOPPED = (
    "Stopping vLLM instance a...",
    "(APIServer pid=1) Traceback (most recent call last):",
    "(APIServer pid=1) asyncio.exceptions.CancelledError",
    "vllm@a.service: Deactivated successfully.",
)


def failed(report: dict[str, Any]) -> UnitEvidence:
    result = report.get("result", "exit-code")
    journal = ("Starting vLLM instance a...", *report["journal"].splitlines())
    return UnitEvidence("gpu1", "a", active="failed", result=result, restarts=5, probe="failed", journal=journal)


@pytest.mark.parametrize("report", [*SEEN, *HELD_OUT], ids=lambda report: report["source"])
def test_what_an_engine_wrote_leads_to_its_cause(report: dict[str, Any]) -> None:
    first, *_ = diagnose(Evidence(units=(failed(report),)))
    if report["source"] in MISSED:
        assert (first.rule, report["journal"].strip().splitlines()[-1]) == ("engine-ended", first.evidence)
        return
    assert first.rule == ("engine-error" if report["cause"] == "unknown" else report["cause"]), first
    assert report.get("phase", "") in first.cause
    assert report.get("last", "") in first.evidence
    assert first.fix
    assert "NAME" not in first.fix


@pytest.mark.parametrize("report", SEEN, ids=lambda report: report["source"])
def test_the_same_words_are_nothing_while_the_instance_serves(report: dict[str, Any]) -> None:
    journal = ("Starting vLLM instance a...", *report["journal"].splitlines(), "Starting vLLM instance a...", "INFO up")
    for words in (journal, journal[:-2]):
        assert diagnose(Evidence(units=(UnitEvidence("gpu1", "a", journal=words),))) == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, set()),
        ({"active": "activating", "probe": "starting"}, {"slow-start"}),
        ({"probe": "hung", "restarts": 2}, {"InstanceHung", "probe-hung"}),
        ({"active": "inactive", "probe": "failed"}, {"probe-failed"}),
    ],
    ids=["ready", "starting", "hung", "stopped"],
)
@pytest.mark.parametrize("report", HEALTHY, ids=lambda report: report["source"])
def test_frightening_words_of_a_healthy_engine_are_no_cause(
    report: dict[str, Any], state: dict[str, Any], expected: set[str]
) -> None:
    journal = (*report["journal"].splitlines(), *(STOPPED if state.get("active") == "inactive" else ()))
    found = diagnose(Evidence(units=(UnitEvidence("gpu1", "a", journal=journal, **state),)))
    assert {finding.rule for finding in found} <= expected


def test_a_third_of_the_reports_was_kept_out_and_no_report_stands_twice() -> None:
    sources = [report["source"] for report in (*SEEN, *HELD_OUT)]
    assert len(SEEN) >= 40
    assert len(HELD_OUT) * 3 >= len(sources)
    assert len(sources) == len({*sources})
    assert len(HEALTHY) >= 10
