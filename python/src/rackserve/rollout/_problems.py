"""Why a rollout loses requests, and what to set so that it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rackserve.rollout._parts import stale_at
from rackserve.rollout._types import How, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rackserve.rollout._batches import Loss
    from rackserve.rollout._input import RolloutInput
    from rackserve.rollout._members import Members, Routes
    from rackserve.rollout._parts import Part

HOLD: Final = "nginx_hold_timeout"


def held_seconds(parts: Sequence[Part], asked: RolloutInput) -> float | None:
    """Return about how long requests wait while instances are drained, started and proved; None: it is not known."""
    starts = [part.start_s for part in parts]
    known = [start for start in starts if start is not None]
    return sum(known) + (asked.drain_s or 0) + (asked.gates_s or 0) if len(known) == len(starts) else None


def is_held(loss: Loss, parts: Sequence[Part], asked: RolloutInput) -> bool:
    """Return whether the edges can hold the requests for the names that a host takes away for a while."""
    if not loss.for_a_while:
        return False
    seconds = held_seconds(takers(loss.for_a_while, loss.host, parts), asked)
    return seconds is not None and seconds <= asked.hold_s


def takers(routes: Routes, host: str, parts: Sequence[Part]) -> list[Part]:
    """Return the instances of a host that change, and that serve one of these names or are to serve it."""
    names = {name for _, name in routes}
    return [part for part in parts if part.host == host and part.work and names & (part.serving | part.wanted)]


def loss_problems(loss: Loss, parts: Sequence[Part], asked: RolloutInput) -> list[Problem]:
    """Return what one host takes away, except for what the edges hold."""
    found: list[Problem] = []
    if loss.for_a_while and not is_held(loss, parts, asked):
        found.append(_for_a_while(loss, parts, asked))
    if loss.to_the_end:
        found.append(_to_the_end(loss.to_the_end, [loss.host], parts))
    return found


def _for_a_while(loss: Loss, parts: Sequence[Part], asked: RolloutInput) -> Problem:
    taken = takers(loss.for_a_while, loss.host, parts)
    labels, names = _labels(taken), _names(loss.for_a_while)
    seconds = held_seconds(taken, asked)
    if seconds is None:
        how_long = f"how long that takes is not known, because no start of {labels} is on record"
    else:
        how_long = f"that takes about {seconds:.0f} s"
    why = (
        f"{_quoted(names)} would have no instance in rotation while {labels} is changed; {how_long}, "
        f"and the edges hold requests for {asked.hold_s:.0f} s"
    )
    raised = f"set {HOLD} to {seconds:.0f} or more" if seconds is not None else f"raise {HOLD}"
    fix = f"{raised}, or bring another instance of it into rotation first (rackserve undrain, or a new one)"
    return Problem(names, [loss.host], why, fix)


def _to_the_end(routes: Routes, hosts: Sequence[str], parts: Sequence[Part]) -> Problem:
    names = _names(routes)
    taken = [part for host in hosts for part in takers(routes, host, parts)]
    why = (
        f"{_quoted(names)} would have no instance in rotation from the change of {_labels(taken)} "
        "until the edges are configured at the end"
    )
    if any(part.moves for part in taken):
        fix = "change the address or port of a part of its instances in one run, and that of the others in the next"
    else:
        fix = "in one run let another instance serve the name too, and in the next remove it here"
    return Problem(names, list(hosts), why, fix)


def pass_problems(lost: Routes, parts: Sequence[Part]) -> list[Problem]:
    """Return what is lost because the edges forget routes before the hosts change."""
    hosts = dict.fromkeys(part.host for part in parts if takers(lost, part.host, parts))
    return [_to_the_end(lost, list(hosts), parts)] if lost else []


def stale_problems(members: Members, promised: Collection[str]) -> list[Problem]:
    """Return the requests that edges would send to instances that no longer serve their names."""
    found = []
    for part in members.parts:
        names = sorted({name for edge in members.edges for name in stale_at(part, edge) if name in promised})
        if names and part.host not in members.first:
            why = f"the edges would send requests for {_quoted(names)} to {part.label}, which will not serve it"
            fix = "remove the name from it in a run of its own, before or after the other changes"
            found.append(Problem(names, [part.host], why, fix))
    return found


def left_problems(parts: Sequence[Part], edges: Sequence[str], promised: Collection[str]) -> list[Problem]:
    """Return the requests that edges, as configured at the end, would send to hosts that are not in this run."""
    found = []
    for part in parts:
        if part.asked or not part.state.live_names or part.state.wanted is None or not part.state.edges:
            continue
        names = part.wanted if part.state.entry == "moves" else part.wanted - set(part.state.live_names)
        lost = sorted(names & set(promised))
        if lost and any(not part.drained_by(edge) for edge in edges):
            why = f"the edges would send requests for {_quoted(lost)} to {part.label}, which does not serve it yet"
            fix = f"run it for {part.host} too (--limit), or bring it back first where it was not reached"
            found.append(Problem(lost, [part.host], why, fix))
    return found


def edge_problems(parts: Sequence[Part], asked: RolloutInput) -> list[Problem]:
    """Return the instances that cannot be taken out of rotation: there is no edge, or one was not reached."""
    drained = [part for part in parts if part.work and part.state.serves and part.how not in (How.BESIDE, How.PROVED)]
    hosts = list(dict.fromkeys(part.host for part in drained))
    if not drained:
        return []
    if asked.unreached_edges:
        names = ", ".join(asked.unreached_edges)
        why = f"{names} could not be reached and would send requests to {_labels(drained)} while they are changed"
        return [Problem([], hosts, why, "bring it back, or take it out of the group edge_hosts")]
    if asked.edges:
        return []
    why = f"the site has no edge, so requests to {_labels(drained)} fail while they are changed"
    return [Problem([], hosts, why, "put hosts into the group edge_hosts")]


def _labels(parts: Sequence[Part]) -> str:
    return ", ".join(dict.fromkeys(part.label for part in parts))


def _names(routes: Routes) -> list[str]:
    return sorted({name for _, name in routes})


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
