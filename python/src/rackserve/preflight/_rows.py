"""A row of preflight's table, and the table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Verdict(StrEnum):
    """Whether a requirement is met; WARNING and UNKNOWN are told and do not refuse a host."""

    FITS = "fits"
    REFUSED = "refused"
    WARNING = "warning"
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


def notes(rows: Iterable[Row]) -> list[str]:
    """Return a sentence for each row that an operator should know of although it refuses nothing."""
    told = [entry for entry in rows if entry.verdict in (Verdict.WARNING, Verdict.UNKNOWN)]
    return list(
        dict.fromkeys(
            f"{r.what}: {r.found} ({r.verdict}; wanted: {r.wanted})" + (f"; {r.fix}" if r.fix else "") for r in told
        )
    )


def table_of(rows: Sequence[Row]) -> str:
    """Return rows as a table, refusals and warnings first, and below it how to fix each of them."""
    rank = {Verdict.REFUSED: 0, Verdict.WARNING: 1}
    ordered = sorted(rows, key=lambda entry: rank.get(entry.verdict, 2))
    lines = [("what", "wanted", "found", "verdict"), *((r.what, r.wanted, r.found, r.verdict) for r in ordered)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    lines.insert(1, ("-" * widths[0], "-" * widths[1], "-" * widths[2], "-" * len("verdict")))
    drawn = ["  ".join([*map(str.ljust, line[:3], widths), line[3]]).rstrip() for line in lines]
    fixes = groupby((r for r in ordered if r.verdict in rank), key=lambda entry: entry.fix)
    return "\n".join([*drawn, *(f"- {', '.join(r.what for r in same)}: {fix}" for fix, same in fixes)])
