"""API paths by model: those of its instances' task that all of their releases have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.errors import InputError
from rackserve.vllm import known_paths, releases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.edge._backend import Backend


def parse_optional(named: Sequence[str]) -> frozenset[str]:
    """Check `nginx_optional_paths`.

    Raises:
        InputError: naming the wrong paths, and the optional ones.
    """
    there = [path for path, row in known_paths().items() if row.optional]
    if wrong := [path for path in named if path not in there]:
        raise InputError(
            f"nginx_optional_paths: {', '.join(wrong)} cannot be offered; choose from {', '.join(there)}. "
            "Other paths follow from the instances' tasks"
        )
    return frozenset(named)


def refuse_mixed_tasks(by_model: Mapping[str, Sequence[Backend]]) -> None:
    """Refuse a model name that instances of different tasks serve.

    Raises:
        InputError: naming the model and the instances.
    """
    for name, members in by_model.items():
        if len({member.task for member in members}) > 1:
            found = ", ".join(f"{member.label} to {member.task}" for member in members)
            raise InputError(f"model {name!r} is served by {found}; give each kind of model a name of its own")


def paths_of(members: Sequence[Backend], optional: frozenset[str]) -> list[str]:
    """Return the allowed paths of a model, in the order of the data; an unknown release has all."""
    return [
        path
        for path, row in known_paths().items()
        if members[0].task in row.tasks
        and (path in optional or not row.optional)
        and all(path in releases()[m.release].paths for m in members if m.release in releases())
    ]
