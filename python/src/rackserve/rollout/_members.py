"""Which instances answer which names at which edge, before, while and after their host changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackserve.rollout._types import How

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rackserve.rollout._parts import Part

Routes = frozenset[tuple[str, str]]  # an edge, and a name for which it has an instance


def names_before(parts: Sequence[Part], first: Collection[str]) -> dict[str, list[str]]:
    """Return the names that each instance serves from the end of `first` to the end of the run, whenever it changes.

    An instance whose address changes serves none in that sense, and neither does one that is removed.
    """
    found = {part.label: _throughout(part, first) for part in parts if part.state.wanted is not None}
    return {label: sorted(names) for label, names in found.items() if names}


def _throughout(part: Part, first: Collection[str]) -> frozenset[str]:
    live, wanted = frozenset(part.state.live_names), part.wanted
    if part.host in first:
        return wanted
    if not part.asked:
        return live & wanted if live else wanted
    return frozenset() if part.moves else live & wanted


@dataclass(frozen=True)
class Members:
    """The routes of a fleet, for one way to order hosts and edges.

    Attributes:
        table: names by instance that the edges know while hosts change; None: what they know now.
    """

    parts: Sequence[Part]
    edges: Sequence[str]
    first: Collection[str]
    table: Mapping[str, Sequence[str]] | None

    def at_rest(self, done: Collection[str]) -> Routes:
        """Return the routes between two batches, when the hosts `done` have changed, and those of `first`."""
        return self._routes(done, ())

    def during(self, done: Collection[str], batch: Collection[str]) -> Routes:
        """Return the routes that stay while the hosts of a batch change."""
        return self._routes(done, batch)

    def late(self, part: Part) -> bool:
        """Return whether an instance that serves gets requests only when the edges are configured at the end."""
        unknown = self.table is None and any(not part.reached_from(edge) for edge in self.edges)
        return part.work and part.host not in self.first and (part.moves or (unknown and part.state.wanted is not None))

    def _routes(self, done: Collection[str], batch: Collection[str]) -> Routes:
        found: set[tuple[str, str]] = set()
        for part in self.parts:
            for edge in self.edges:
                if part.host in batch:
                    names = self._while_changing(part, edge)
                elif part.host in done or part.host in self.first:
                    names = self._after(part, edge)
                else:
                    names = self._before(part, edge)
                found |= {(edge, name) for name in names}
        return frozenset(found)

    def _known(self, part: Part, edge: str) -> frozenset[str]:
        if self.table is not None:
            return frozenset(self.table.get(part.label, ()))
        return part.names_at(edge) if part.reached_from(edge) else frozenset()

    def _before(self, part: Part, edge: str) -> frozenset[str]:
        if part.drained_by(edge) and not (part.taken_back and part.drained_by(edge) == "rollout"):
            return frozenset()
        return self._known(part, edge) & part.serving

    def _while_changing(self, part: Part, edge: str) -> frozenset[str]:
        before = self._before(part, edge)
        if not part.work:
            return before
        return before & self._after(part, edge) if part.how is How.BESIDE else frozenset()

    def _after(self, part: Part, edge: str) -> frozenset[str]:
        if not part.work:
            return self._before(part, edge)
        told = part.host in self.first and self.table is not None
        if part.drained_by(edge) == "operator" or self.late(part) or (part.moves and not told):
            return frozenset()
        return self._known(part, edge) & part.wanted
