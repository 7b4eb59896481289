"""Numbers of a config.json, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackserve.capacity._shape import NotComputedError

if TYPE_CHECKING:
    from collections.abc import Mapping


def number(text: Mapping[str, Any], *keys: str, default: int | None = None) -> int:
    """Return the first of these numbers that is there, else the default.

    Raises:
        NotComputedError: when it is no whole number of 1 or more, a list of unlike ones, or missing without a default.
    """
    for key in keys:
        value = text.get(key)
        if value is None or (value == 0 and default == 0):
            continue
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if isinstance(value, list):
            raise NotComputedError(f"{key}: the layers differ from each other, which is not computed here")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise NotComputedError(f"{key} is {value!r}; a whole number of 1 or more is needed")
        return value
    if default is None:
        raise NotComputedError(f"{keys[0]} is missing, so the KV cache is not computed")
    return default


def flag(text: Mapping[str, Any], key: str, default: bool) -> bool:  # noqa: FBT001 - the value of a key
    """Return a switch of a config.json, its default where it is not there.

    Raises:
        NotComputedError: when it is neither true nor false.
    """
    value = text.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise NotComputedError(f"{key} is {value!r}; true or false is needed")
    return value
