"""Checks a whole site: the results of its hosts, and checks through its edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.checks import edge
from rackserve.checks.evidence import EvidenceCollector
from rackserve.run import inspect_fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from rackserve.checks._types import CheckResult, EdgeTarget
    from rackserve.checks.evidence import Evidence
    from rackserve.run import RunEvent, RunResult


def gather_evidence(
    inventory: Path, tags: Sequence[str], limit: str | None, on_event: Callable[[RunEvent], None]
) -> tuple[RunResult, dict[str, Evidence]]:
    """Run playbooks/verify_fleet.yml with these tags and return each host's evidence; `on_event` gets every event."""
    collector = EvidenceCollector()

    def take(event: RunEvent) -> None:
        collector.take(event)
        on_event(event)

    return inspect_fleet(inventory, tags, on_event=take, limit=limit), collector.by_host


def edge_results(evidence: Iterable[Evidence], on_edge: Callable[[EdgeTarget], None]) -> list[CheckResult]:
    """Run the checks from this controller through every edge that gave evidence; `on_edge` is called before each."""
    results: list[CheckResult] = []
    for found in evidence:
        if found.edge is not None:
            on_edge(found.edge)
            results += edge.run_edge_checks(found.edge)
    return results
