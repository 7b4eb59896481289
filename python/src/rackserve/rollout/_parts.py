"""The instances of a rollout, each with what is to be done to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackserve.rollout._types import How

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rackserve.rollout._input import HostState, InstanceState

_LEFT_BY_A_RUN = ("rollout", "weight")


@dataclass(frozen=True)
class Part:
    """An instance on its host.

    Attributes:
        asked: whether its host takes part in this run.
    """

    host: str
    asked: bool
    reachable: bool
    state: InstanceState

    @property
    def label(self) -> str:
        """Its name in the whole fleet, as `rackserve drain` takes it."""
        return f"{self.host}:{self.state.name}"

    @property
    def serving(self) -> frozenset[str]:
        """Names that it serves now; of a host that was not asked, those that it should serve."""
        if self.state.serves is None and self.reachable:
            return frozenset(self.state.live_names or self.state.wanted_names)
        return frozenset(self.state.live_names if self.state.serves else ())

    @property
    def wanted(self) -> frozenset[str]:
        """Names that the inventory wants of it; none where it is to be removed."""
        return frozenset(self.state.wanted_names if self.state.wanted else ())

    @property
    def left_by_a_run(self) -> bool:
        """Whether a rollout that died left it drained, or with a share of its requests."""
        return any(at.state in _LEFT_BY_A_RUN for at in self.state.edges.values())

    @property
    def work(self) -> bool:
        """Whether anything is to be done to it in this run."""
        state = self.state
        if not self.asked or state.live is state.wanted is None:
            return False
        same = state.live == state.wanted and state.entry == "same" and state.serves is True
        return not same or self.left_by_a_run

    @property
    def moves(self) -> bool:
        """Whether the edges reach it only after they are configured: its entry gets another address or port."""
        return self.work and self.state.entry == "moves" and self.state.wanted is not None

    @property
    def taken_back(self) -> bool:
        """Whether it goes into rotation again before anything else, as what it was before the run that died."""
        return self.asked and self.left_by_a_run and self.state.serves is True and self.state.live != self.state.wanted

    @property
    def how(self) -> How:
        """How it is changed, as far as that is its own matter; the last one of a name may be held besides."""
        state = self.state
        if state.wanted is None:
            return How.REMOVED
        if state.serves is not True:
            return How.STARTED
        if state.entry == "same" and state.live == state.wanted:
            return How.PROVED
        return How.BESIDE if state.entry == "same" and state.way == "beside" else How.DRAINED

    @property
    def start_s(self) -> float | None:
        """Seconds that its engine takes to start; 0 where none is started, None where it is not known."""
        state = self.state
        starts = state.wanted is not None and (state.live != state.wanted or state.serves is not True)
        return state.start_s if starts else 0

    def names_at(self, edge: str) -> frozenset[str]:
        """Return the names that an edge routes to it now."""
        at = self.state.edges.get(edge)
        if at is None or at.state == "absent":
            return frozenset()
        if at.names is not None:
            return frozenset(at.names)
        return frozenset(self.state.live_names or self.state.wanted_names)

    def reached_from(self, edge: str) -> bool:
        """Return whether an edge that knows it has its present address and port."""
        at = self.state.edges.get(edge)
        return at is None or at.reaches

    def drained_by(self, edge: str) -> str:
        """Return who drained it at an edge: `operator`, `rollout`, or nobody, an empty text."""
        at = self.state.edges.get(edge)
        return at.state if at and at.state in ("operator", "rollout") else ""


def parts_of(hosts: Iterable[HostState]) -> list[Part]:
    """Return all instances, in the order of their hosts."""
    return [
        Part(host.name, host.selected and host.reachable, host.reachable, instance)
        for host in hosts
        for instance in host.instances
    ]


def first_hosts(parts: Sequence[Part], edges: Sequence[str]) -> list[str]:
    """Return the hosts that serve nothing: nothing is lost when all of them change at once.

    A host that a run left drained is not one of them: what it runs has yet to prove itself. Neither is one to which an
    edge routes a name that it will not serve: the edge is to forget that name first.
    """
    working = dict.fromkeys(part.host for part in parts if part.work)
    busy = {
        part.host
        for part in parts
        if part.state.serves or part.left_by_a_run or any(stale_at(part, edge) for edge in edges)
    }
    return [host for host in working if host not in busy]


def serving_hosts(parts: Sequence[Part], first: Sequence[str]) -> list[str]:
    """Return the other hosts that change: those that a run left drained, then the rest, each in the given order."""
    hosts = dict.fromkeys(part.host for part in parts if part.work and part.host not in first)
    left = {part.host for part in parts if part.work and part.left_by_a_run}
    return sorted(hosts, key=lambda host: host not in left)


def stale_at(part: Part, edge: str) -> frozenset[str]:
    """Return the names that an edge routes to an instance, and that it does not serve after this run."""
    if not part.asked or part.state.wanted is None or part.drained_by(edge) == "operator":
        return frozenset()
    return part.names_at(edge) - part.wanted
