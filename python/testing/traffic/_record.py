"""One line a request."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Record:
    """What became of one request.

    Attributes:
        start: seconds since the epoch.
        first: seconds from then to the first token of a stream, or to the first byte of the body; 0 if none came.
        end: seconds from then to the end.
        kept: whether its client keeps its connection for the next request.
        reason: why it failed; empty for a good one.
        fingerprint: vLLM's `system_fingerprint`: release and a digest of the engine's configuration.
        request: the edge's ID of it, where the answer told.
    """

    client: int
    kind: str
    model: str
    start: float
    first: float
    end: float
    kept: bool
    status: int = 0
    reason: str = ""
    detail: str = ""
    tokens: int = 0
    fingerprint: str = ""
    request: str = ""

    @property
    def ok(self) -> bool:
        """Whether the answer was good."""
        return not self.reason

    def line(self) -> str:
        """Return it as a line of a file."""
        return json.dumps(asdict(self)) + "\n"


def read_records(path: Path) -> list[Record]:
    """Read a file of records in the order in which the requests ended."""
    return [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def upstreams(records: Iterable[Record], log: Iterable[str]) -> dict[str, Counter[str]]:
    """Return who answered: upstream of the edge, as ADDRESS:PORT, to how many answers of each fingerprint.

    Args:
        records: of requests; those whose answers do not tell the edge's ID are left out.
        log: lines of the edge's access log.
    """
    rows = (json.loads(line) for line in log)
    place = {row["id"]: row["upstream"].rpartition(", ")[2] for row in rows if row.get("upstream")}
    found: dict[str, Counter[str]] = {}
    for record in records:
        if record.request in place:
            found.setdefault(place[record.request], Counter())[record.fingerprint] += 1
    return found
