"""A row of preflight's table, and the table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Verdict(StrEnum):
    """Whether a requirement is met; UNKNOWN does not refuse a host."""

    FITS = "fits"
    REFUSED = "refused"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Row:
    """One requirement of a host, the value found, and how to fix it."""

    what: str
    wanted: str
    found: str
    verdict: Verdict
    fix: str = ""


def row(what: str, wanted: str, found: str, fix: str, *, fits: bool | None) -> Row:
    """Return a row; `fits` is None where the value is unknown."""
    verdict = {True: Verdict.FITS, False: Verdict.REFUSED, None: Verdict.UNKNOWN}[fits]
    return Row(what, wanted, found, verdict, fix)


def refused(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that refuse the host."""
    return [entry for entry in rows if entry.verdict is Verdict.REFUSED]


def table_of(rows: Sequence[Row]) -> str:
    """Return rows as a table, refusals first, and below it how to fix each of them."""
    ordered = sorted(rows, key=lambda entry: entry.verdict is not Verdict.REFUSED)
    lines = [("what", "wanted", "found", "verdict"), *((r.what, r.wanted, r.found, r.verdict) for r in ordered)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    lines.insert(1, ("-" * widths[0], "-" * widths[1], "-" * widths[2], "-" * len("verdict")))
    drawn = ["  ".join([*map(str.ljust, line[:3], widths), line[3]]).rstrip() for line in lines]
    fixes = groupby(refused(ordered), key=lambda entry: entry.fix)
    return "\n".join([*drawn, *(f"- {', '.join(r.what for r in same)}: {fix}" for fix, same in fixes)])
