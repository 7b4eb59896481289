"""Diagnosis of a fleet: pure rules over evidence."""

from rackserve.doctor._evidence import Alert, Drained, Evidence, UnitEvidence, read_evidence
from rackserve.doctor._finding import Finding
from rackserve.doctor._rules import diagnose

__all__ = ["Alert", "Drained", "Evidence", "Finding", "UnitEvidence", "diagnose", "read_evidence"]
