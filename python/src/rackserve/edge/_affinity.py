"""`nginx_affinity`: whether requests that share something go to one instance of their group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHOICES = ("none", "key", "prefix")


def parse_affinity(wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the affinity settings for the Lua code, or None for none.

    Args:
        wanted: `by`, `prefix` (characters that count) and `concurrent` (open requests of one kind on one instance).

    Raises:
        InputError: naming the variable, the value found and what to set.
    """
    by = str(wanted.get("by", "none"))
    if by not in _CHOICES:
        raise InputError(f"nginx_affinity is {by!r}; set one of {', '.join(_CHOICES)}")
    if by == "none":
        return None
    for name in ("prefix", "concurrent"):
        if int(wanted[name]) < 1:
            raise InputError(f"nginx_affinity_{name} is {wanted[name]}; set it to 1 or more")
    return {"by": by, "prefix": int(wanted["prefix"]), "concurrent": int(wanted["concurrent"])}
