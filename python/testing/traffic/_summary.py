"""What came of all requests together."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testing.traffic._record import Record

_MOST: Final = 20


@dataclass(frozen=True)
class Summary:
    """Counts and times.

    Attributes:
        counts: kind -> (good, failed).
        reasons: reason -> how many failed for it.
        failures: the failed ones in the order of their starts.
        first_s: p50 and p95 of the seconds to the first token, of good streams.
        total_s: p50 and p95 of the seconds of good requests.
        gap_s: the longest time in which no good answer ended.
        versions: fingerprint -> how many good answers had it.
    """

    counts: dict[str, tuple[int, int]]
    reasons: dict[str, int]
    failures: tuple[Record, ...]
    first_s: tuple[float, float]
    total_s: tuple[float, float]
    gap_s: float
    seconds: float
    versions: dict[str, int]

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(good + failed for good, failed in self.counts.values())

    @property
    def failed(self) -> int:
        """How many failed."""
        return len(self.failures)

    def text(self) -> str:
        """Return it for a reader."""
        first, total = (f"p50 {middle:.2f} s, p95 {high:.2f} s" for middle, high in (self.first_s, self.total_s))
        lines = [
            f"{self.requests} requests in {self.seconds:.0f} s, {self.failed} failed",
            f"first token {first}; whole answer {total}; longest time without a good answer {self.gap_s:.1f} s",
            *(f"  {kind}: {good} good, {failed} failed" for kind, (good, failed) in self.counts.items()),
            *(f"  answered by {version or 'one that does not say'}: {many}" for version, many in self.versions.items()),
            *(f"  failed, {reason}: {many}" for reason, many in self.reasons.items()),
        ]
        for record in self.failures[:_MOST]:
            clock = time.strftime("%H:%M:%S", time.gmtime(record.start))
            lines.append(
                f"    {clock} after {record.end:.2f} s, {record.kind}, {'kept' if record.kept else 'new'} connection: "
                f"{record.reason}: {record.detail}"
            )
        return "\n".join(lines)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of all are not above; 0 of none."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else 0.0


def summarise(records: Sequence[Record]) -> Summary:
    """Sum up the records of one time of traffic."""
    good = [record for record in records if record.ok]
    kinds: dict[str, tuple[int, int]] = {}
    for record in sorted(records, key=lambda each: each.kind):
        well, badly = kinds.get(record.kind, (0, 0))
        kinds[record.kind] = (well + record.ok, badly + (not record.ok))
    began = min((record.start for record in records), default=0.0)
    ended = max((record.start + record.end for record in records), default=0.0)
    moments = sorted([began, *(record.start + record.end for record in good), ended])
    firsts = [record.first for record in good if record.kind.endswith("streamed")]
    totals = [record.end for record in good]
    failures = sorted((record for record in records if not record.ok), key=lambda each: each.start)
    return Summary(
        counts=kinds,
        reasons=dict(Counter(record.reason for record in failures).most_common()),
        failures=tuple(failures),
        first_s=(percentile(firsts, 0.5), percentile(firsts, 0.95)),
        total_s=(percentile(totals, 0.5), percentile(totals, 0.95)),
        gap_s=max((after - before for before, after in pairwise(moments)), default=0.0),
        seconds=ended - began,
        versions=dict(Counter(record.fingerprint for record in good).most_common()),
    )
