"""The plan of a rollout: its order, its batches, and what it loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackserve.errors import InputError
from rackserve.rollout import _problems, _rows
from rackserve.rollout._batches import pack
from rackserve.rollout._members import Members, names_before
from rackserve.rollout._parts import first_hosts, parts_of, serving_hosts, stale_at
from rackserve.rollout._steps import parse_steps
from rackserve.rollout._types import How, RolloutPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.rollout._batches import Packed
    from rackserve.rollout._input import RolloutInput
    from rackserve.rollout._parts import Part
    from rackserve.rollout._types import Problem


@dataclass(frozen=True)
class _Work:
    """What is to be done, before it is known in which way."""

    asked: RolloutInput
    steps: Sequence[int | str]
    parts: Sequence[Part]
    first: Sequence[str]
    order: Sequence[str]

    @property
    def wanted(self) -> frozenset[str]:
        """Names that the inventory wants; the others may go."""
        return frozenset(name for part in self.parts for name in part.wanted)


@dataclass(frozen=True)
class _Way:
    """One way to order hosts and edges, and what it loses."""

    members: Members
    packed: Packed
    problems: list[Problem]


def rollout_plan(asked: RolloutInput) -> RolloutPlan:
    """Return the plan of a rollout.

    Hosts that serve nothing come first, all at once. The others follow in batches, in which every served name keeps an
    instance in rotation at every edge; one that an operator drained counts as out. The edges are configured at the end
    with what the inventory wants, and before the first batch too where only that keeps every request.

    Raises:
        InputError: the steps are wrong, or the pause is after a host or a batch that this plan does not have.
    """
    steps, parts = parse_steps(asked.steps), parts_of(asked.hosts)
    first = first_hosts(parts, asked.edges)
    work = _Work(asked, steps, parts, first, serving_hosts(parts, first))
    way = _best_way(work)
    batch_of = dict.fromkeys(first, 0)
    batch_of |= {host: number for number, batch in enumerate(way.packed.batches, start=1) for host in batch}
    held = _held(way, parts, asked)
    rows = _rows.rows_of(parts, batch_of, held, {host for found in way.problems for host in found.hosts}, asked)
    seconds, unknown = _rows.total_seconds(parts, batch_of, asked)
    return RolloutPlan(
        run=asked.run,
        take_back=[part.label for part in parts if part.taken_back],
        first=first,
        edges_before=way.members.table is not None,
        names_before={label: list(names) for label, names in (way.members.table or {}).items()},
        order=list(work.order),
        serial=[len(batch) for batch in way.packed.batches],
        held=held,
        back_after_edges=[part.label for part in parts if way.members.late(part)],
        unchanged=[h.name for h in asked.hosts if h.selected and h.reachable and h.name not in batch_of],
        left=[h.name for h in asked.hosts if not (h.selected and h.reachable)],
        pause_after=_pause(asked.pause_after.strip(), batch_of),
        consent=asked.consent.strip(),
        problems=way.problems,
        rows=rows,
        notes=_notes(way, work),
        seconds=seconds,
        unknown=unknown,
    )


def _best_way(work: _Work) -> _Way:
    """Return the way that loses least: hosts before edges, unless the other one is better."""
    edges = work.asked.edges
    ways = [_way(work, None)]
    table = names_before(work.parts, work.first)
    if work.order and edges and table:
        ways.append(_way(work, table))
    forgotten = any(
        stale_at(part, edge) - work.wanted
        or (part.work and part.how is How.REMOVED and part.names_at(edge) - work.wanted)
        for part in work.parts
        for edge in edges
    )
    return min(ways, key=lambda way: (len(way.problems), forgotten and way.members.table is None))


def _way(work: _Work, table: Mapping[str, Sequence[str]] | None) -> _Way:
    asked, parts, wanted = work.asked, work.parts, work.wanted
    members = Members(parts, asked.edges, work.first, table)
    packed = pack(work.order, work.steps, members, wanted)
    now = Members(parts, asked.edges, work.first, None).at_rest(())
    promised = frozenset((edge, name) for edge, name in now if name in wanted)
    problems = _problems.edge_problems(parts, asked)
    problems += _problems.pass_problems(promised - members.at_rest(()), parts)
    for loss in packed.losses:
        problems += _problems.loss_problems(loss, parts, asked)
    if table is None and work.order:
        problems += _problems.stale_problems(members, wanted)
    problems += _problems.left_problems(parts, asked.edges, {name for _, name in promised})
    return _Way(members, packed, problems)


def _held(way: _Way, parts: Sequence[Part], asked: RolloutInput) -> list[str]:
    return [
        part.label
        for loss in way.packed.losses
        if _problems.is_held(loss, parts, asked)
        for part in _problems.takers(loss.for_a_while, loss.host, parts)
    ]


def _pause(wanted: str, batch_of: Mapping[str, int]) -> int | None:
    if not wanted or not batch_of:
        return None
    number = int(wanted) if wanted.isdecimal() else batch_of.get(wanted)
    if number is None or number not in batch_of.values():
        last, hosts = max(batch_of.values()), ", ".join(batch_of)
        raise InputError(
            f"stack_rollout_pause_after is {wanted!r}, which is no batch and no host of this plan; "
            f"set a number up to {last}, or one of {hosts}"
        )
    return number


def _notes(way: _Way, work: _Work) -> list[str]:
    notes = []
    routed = {name for part in work.parts for edge in work.asked.edges for name in part.names_at(edge)}
    gone = sorted(routed - work.wanted)
    if gone:
        when = "before the first host changes" if way.members.table is not None else "at the end"
        notes.append(f"the edges forget {', '.join(map(repr, gone))} {when}, because no instance is to serve it")
    for part in work.parts:
        if part.left_by_a_run and not part.asked:
            runs = ", ".join(sorted({at.run for at in part.state.edges.values() if at.run})) or "an earlier one"
            notes.append(
                f"{part.label} was left out of rotation by the run {runs} and is not in this run; "
                f"run it for {part.host} too, or give it back: rackserve undrain {part.label}"
            )
    return notes
