"""The difference of a host from its record, as one sentence."""

from __future__ import annotations

import datetime as dt
from typing import Any, NamedTuple, Optional

KINDS = ("file", "unit", "package", "user", "socket", "firewall", "kernel", "unowned")


class Difference(NamedTuple):
    """One difference.

    Attributes:
        kind: one of KINDS.
        what: the path, unit, package, user, socket, table or fact.
        attribute: of it, such as `mode`; `presence` where the whole is gone or new.
        recorded: what the record has; empty for nothing.
        found: what the host has; empty for nothing.
        text: what is wrong, in one sentence that has no secrets.
        role: which declared it.
        since: time of its last change, ISO 8601, where it can be known.
        by: who or what changed it, where it can be known.
    """

    kind: str
    what: str
    attribute: str
    recorded: str
    found: str
    text: str
    role: str = ""
    since: str = ""
    by: str = ""


def iso(seconds: Optional[float]) -> str:  # noqa: UP045 - Python 3.9 runs this
    """Return a time as ISO 8601, to the second; empty for none."""
    if not seconds:
        return ""
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).isoformat(timespec="seconds")


def gone(kind: str, what: str, recorded: str, text: str, **known: Any) -> Difference:  # noqa: ANN401 - of Difference
    """Return the difference of what is no longer there."""
    return Difference(kind, what, "presence", recorded, "", text, **known)


def new(kind: str, what: str, found: str, text: str, **known: Any) -> Difference:  # noqa: ANN401 - of Difference
    """Return the difference of what was not there."""
    return Difference(kind, what, "presence", "", found, text, **known)


def changed(kind: str, what: str, attribute: str, pair: tuple[str, str], **known: Any) -> Difference:  # noqa: ANN401 - of Difference
    """Return the difference of one attribute, whose values may be shown."""
    recorded, found = pair
    text = known.pop("text", f"{attribute} of {what} is {found or 'empty'}, recorded {recorded or 'empty'}")
    return Difference(kind, what, attribute, recorded, found, text, **known)
