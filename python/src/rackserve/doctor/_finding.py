"""The finding of a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rackserve.doctor._evidence import UnitEvidence

# States of a probe in which an instance generates.
UP: Final = frozenset({"ready", "busy"})


@dataclass(frozen=True)
class Finding:
    """A probable cause, its place, the evidence and the fix; `likelihood` is in percent."""

    cause: str
    host: str
    instance: str
    evidence: str
    fix: str
    likelihood: int
    rule: str


def of_unit(unit: UnitEvidence, cause: str, evidence: str, fix: str, *, likelihood: int, rule: str) -> Finding:
    """Return a finding about one instance."""
    return Finding(cause, unit.host, unit.instance, evidence.strip(), fix, likelihood, rule)
