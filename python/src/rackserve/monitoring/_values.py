"""Durations and addresses as Prometheus reads them."""

from __future__ import annotations

import re
from typing import Final

_UNITS_S: Final = {"y": 31_536_000.0, "w": 604_800.0, "d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile("".join(rf"(?:(?P<{unit}>[0-9]+){unit})?" for unit in _UNITS_S))
_ADDRESS: Final = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration such as 90s or 1m30s.

    Raises:
        ValueError: it is not a duration, or is zero.
    """
    match = _DURATION.fullmatch(duration)
    seconds = sum(int(count or 0) * _UNITS_S[unit] for unit, count in match.groupdict().items()) if match else 0
    if not seconds:
        raise ValueError(f"{duration!r} is not a duration; write it like 30s or 1m30s")
    return seconds


def is_address(target: str) -> bool:
    """Return whether a target is host:port; the host is a name, an IPv4 address, or an IPv6 address in brackets."""
    match = _ADDRESS.fullmatch(target)
    return match is not None and 0 < int(match[1]) < 2**16
