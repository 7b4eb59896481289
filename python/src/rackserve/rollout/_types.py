"""The plan of a rollout, as plain data: lists and texts, which Ansible and a record take as they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class How(StrEnum):
    """How an instance is changed."""

    STARTED = "started"  # it serves nothing now
    BESIDE = "beside"  # the new engine starts beside the old one; requests never wait
    DRAINED = "drained"  # out of rotation at every edge; others of its names serve meanwhile
    HELD = "held"  # drained as the last one of a name; the edges hold new requests meanwhile
    PROVED = "proved"  # a run that died left the wanted generation without its gates
    REMOVED = "removed"  # drained, and not started again


@dataclass(frozen=True)
class Problem:
    """Why a rollout cannot keep every request.

    Attributes:
        names: served names that lose requests; none where clients of whole hosts do.
        why: what would happen, in one sentence.
        fix: what to set so that nothing is lost.
    """

    names: list[str]
    hosts: list[str]
    why: str
    fix: str

    @property
    def text(self) -> str:
        """The problem and its fix, in one sentence."""
        return f"{self.why}; {self.fix}"


@dataclass(frozen=True)
class Row:
    """What is done to one instance.

    Attributes:
        batch: number of its batch from 1; 0 for hosts that serve nothing.
        live: digest of the generation that is live now.
        wanted: digest of the one that the inventory wants; None where the instance is removed.
        what: the changes, in words.
        restarted: `engine`, `entry`, both or neither; an engine that starts beside the old one restarts nothing.
        seconds: about how long at most; None where its start is not known.
        lossless: whether no request is lost.
    """

    host: str
    batch: int
    instance: str
    live: str | None
    wanted: str | None
    what: list[str]
    restarted: list[str]
    how: How
    seconds: float | None
    lossless: bool


@dataclass(frozen=True)
class RolloutPlan:
    """What a rollout does, in its order.

    Attributes:
        run: ID of the rollout.
        take_back: instances that a run that died left drained, with the generation before: in rotation again at once.
        first: hosts that serve nothing now; all at once, before any other.
        edges_before: whether the edges are configured between `first` and the first batch, by `names_before`.
        names_before: names that an edge routes to each instance from then to the end; it knows no other instance.
        order: hosts that serve, in the order in which they change.
        serial: the sizes of their batches; together as many as `order` has.
        held: instances for whose names the edges hold requests while they are changed.
        back_after_edges: instances that get requests again only when the edges are configured at the end.
        unchanged: hosts on which nothing is changed.
        left: hosts that differ or may differ, and are not in this run: another limit, or not reached.
        pause_after: number of the batch after which the run pauses.
        consent: the reason for which problems are accepted.
        problems: why requests would be lost; with a consent they stop nothing.
        rows: one for each instance that is touched.
        notes: what else is to be known.
        seconds: about how long the batches take together, as far as it is known.
        unknown: instances that make it longer, because no start of theirs is known.
    """

    run: str
    take_back: list[str]
    first: list[str]
    edges_before: bool
    names_before: dict[str, list[str]]
    order: list[str]
    serial: list[int]
    held: list[str]
    back_after_edges: list[str]
    unchanged: list[str]
    left: list[str]
    pause_after: int | None
    consent: str
    problems: list[Problem]
    rows: list[Row]
    notes: list[str]
    seconds: float
    unknown: list[str]

    @property
    def batches(self) -> list[list[str]]:
        """The hosts of each batch."""
        ends = [sum(self.serial[: number + 1]) for number in range(len(self.serial))]
        return [self.order[end - size : end] for end, size in zip(ends, self.serial, strict=True)]

    @property
    def refused(self) -> bool:
        """Whether it must not run."""
        return bool(self.problems) and not self.consent

    @property
    def refusal(self) -> str:
        """All problems in one message, and how to go on in spite of them."""
        return (
            f"nothing was changed, because requests would be lost: {'; '.join(one.text for one in self.problems)}; "
            "or accept the loss: rackserve rollout --consent REASON, or stack_rollout_consent: REASON"
        )
