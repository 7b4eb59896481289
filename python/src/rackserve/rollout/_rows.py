"""What is done to each instance, in words and seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.rollout._types import How, Row

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rackserve.rollout._input import RolloutInput
    from rackserve.rollout._parts import Part


def rows_of(
    parts: Sequence[Part],
    batch_of: Mapping[str, int],
    held: Collection[str],
    losing: Collection[str],
    asked: RolloutInput,
) -> list[Row]:
    """Return a row for each instance that is touched, in the order of the batches.

    Args:
        parts: all instances.
        batch_of: number of the batch of each host; 0 for hosts that serve nothing.
        held: labels of the instances for whose names requests are held.
        losing: hosts that a problem names.
        asked: the plan's input.
    """
    rows = []
    for part in sorted((part for part in parts if part.work), key=lambda part: batch_of[part.host]):
        how = How.HELD if part.label in held else part.how
        rows.append(
            Row(
                host=part.host,
                batch=batch_of[part.host],
                instance=part.state.name,
                live=part.state.live,
                wanted=part.state.wanted,
                what=_what(part),
                restarted=_restarted(part, how),
                how=how,
                seconds=None if part.start_s is None else part.start_s + _around(part, asked, batch_of[part.host]),
                lossless=part.host not in losing,
            )
        )
    return rows


def _what(part: Part) -> list[str]:
    state = part.state
    live, wanted = set(state.live_names), set(state.wanted_names)
    words = list(state.changes)
    if state.wanted is None:
        words.append("removed")
    elif state.live is None:
        words.append("new")
    elif live != wanted:
        names = [*(f"+{name}" for name in sorted(wanted - live)), *(f"-{name}" for name in sorted(live - wanted))]
        words.append(f"served names {' '.join(names)}")
    if state.entry != "same" and state.live is not None:
        words.append("entry: another address or port" if state.entry == "moves" else "entry: who may connect")
    if state.live is not None and state.live == state.wanted and state.serves is not True:
        words.append("does not serve")
    if part.how is How.PROVED:
        words.append("left by a run that died")
    return words or [f"generation {state.live} -> {state.wanted}"]


def _restarted(part: Part, how: How) -> list[str]:
    engine = how in (How.DRAINED, How.HELD) and part.state.live != part.state.wanted
    entry = part.state.entry != "same" and part.state.wanted is not None and part.state.live is not None
    return [*(["engine"] if engine else []), *(["entry"] if entry else [])]


def _around(part: Part, asked: RolloutInput, batch: int) -> float:
    """Return the seconds before and after a start: streams that end, gates, soak."""
    drains = part.state.serves is True and part.how is not How.PROVED
    proves = batch > 0 and part.how is not How.REMOVED
    return ((asked.drain_s or 0) if drains else 0) + ((asked.gates_s or 0) + (asked.soak_s or 0) if proves else 0)


def total_seconds(parts: Sequence[Part], batch_of: Mapping[str, int], asked: RolloutInput) -> tuple[float, list[str]]:
    """Return about how long all batches take, one after the other, and the instances whose start is not known.

    On a host engines are counted as if they started one after the other; hosts of a batch work beside each other.
    """
    slowest: dict[int, float] = {}
    touched = [part for part in parts if part.work]
    for host, batch in batch_of.items():
        own = [part for part in touched if part.host == host]
        seconds = sum(part.start_s or 0 for part in own) + max(_around(part, asked, batch) for part in own)
        slowest[batch] = max(slowest.get(batch, 0), seconds)
    return sum(slowest.values()), [part.label for part in touched if part.start_s is None]
