"""Divides hosts into batches, so that every name keeps an instance in rotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackserve.rollout._steps import batch_size

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rackserve.rollout._members import Members, Routes


@dataclass(frozen=True)
class Loss:
    """Routes that are without an instance when one host changes, even alone.

    Attributes:
        for_a_while: those that have one again when the host has changed.
        to_the_end: those that have one again when the edges are configured.
    """

    host: str
    for_a_while: Routes
    to_the_end: Routes


@dataclass(frozen=True)
class Packed:
    """The batches, and the hosts that lose something; each of these is alone in its batch."""

    batches: list[list[str]]
    losses: list[Loss]


def pack(order: Sequence[str], steps: Sequence[int | str], members: Members, promised: Collection[str]) -> Packed:
    """Return the batches of hosts in their order.

    Args:
        order: hosts that serve and change.
        steps: as of `parse_steps`.
        members: the routes of the fleet.
        promised: names that the inventory wants; the others may go.
    """
    batches: list[list[str]] = []
    losses: list[Loss] = []
    done: list[str] = []
    while len(done) < len(order):
        rest = order[len(done) :]
        batch = [rest[0]]
        loss = _loss(done, batch, members, promised)
        if loss.for_a_while or loss.to_the_end:
            losses.append(loss)
        else:
            for host in rest[1 : batch_size(steps, len(order), len(batches))]:
                more = _loss(done, [*batch, host], members, promised)
                if more.for_a_while or more.to_the_end:
                    break
                batch.append(host)
        batches.append(batch)
        done += batch
    return Packed(batches, losses)


def _loss(done: Sequence[str], batch: Sequence[str], members: Members, promised: Collection[str]) -> Loss:
    kept = frozenset((edge, name) for edge, name in members.at_rest(done) if name in promised)
    gone = kept - members.during(done, batch)
    to_the_end = kept - members.at_rest([*done, *batch])
    return Loss(batch[0], gone - to_the_end, to_the_end)
