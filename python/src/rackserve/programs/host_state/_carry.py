"""What a run did not make is not recorded as its work: a difference from before the run stays a difference after it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from collections.abc import Iterator

_Place = tuple[str, ...]


def fingerprint(roles: dict[str, Any], difference: dict[str, Any]) -> str:
    """Return a digest of what a host has where it differs."""
    state = roles.get(difference["role"], {}).get("state", {})
    found = [_value(state, place) for place in _places(state, difference["kind"], difference["what"])]
    compared = [{key: one[key] for key in one if key[0] != "_"} if isinstance(one, dict) else one for one in found]
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:16]


def carry(recorded: dict[str, Any], roles: dict[str, Any], before: list[dict[str, Any]], prints: dict[str, str]) -> int:
    """Put back into new roles what the record had where a difference from before the run is still there.

    Args:
        recorded: the roles of the record before.
        roles: those that are about to be recorded; they are changed.
        before: differences from before the run.
        prints: their fingerprints by `key_of`.

    Returns:
        How many differences remain.
    """
    count = 0
    for one in before:
        role = one["role"]
        if role not in recorded or role not in roles or fingerprint(roles, one) != prints.get(key_of(one)):
            continue
        old, new = recorded[role]["state"], roles[role]["state"]
        places = {*_places(old, one["kind"], one["what"]), *_places(new, one["kind"], one["what"])}
        for place in sorted(places):
            _put(new, place, _value(old, place))
        count += 1
    return count


def key_of(difference: dict[str, Any]) -> str:
    """Return what a difference concerns, as one text."""
    return f"{difference['role']} {difference['kind']} {difference['what']}"


def _places(state: dict[str, Any], kind: str, what: str) -> Iterator[_Place]:
    if what in state.get(kind, {}):
        yield kind, what
    folder, _, name = what.rpartition("/")
    for top, tree in state.get("tree", {}).items() if kind == "file" else ():
        if name in tree.get(folder, {}):
            yield "tree", top, folder, name


def _value(state: dict[str, Any], place: _Place) -> Optional[Any]:  # noqa: UP045, ANN401 - Python 3.9; JSON
    found: Any = state
    for key in place:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _put(state: dict[str, Any], place: _Place, value: Optional[Any]) -> None:  # noqa: UP045, ANN401 - Python 3.9; JSON
    for key in place[:-1]:
        state = state.setdefault(key, {})
    if value is None:
        state.pop(place[-1], None)
    else:
        state[place[-1]] = value
