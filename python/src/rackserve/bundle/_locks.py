"""Lock files: what their texts pin, and by which hashes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

_PIN: Final = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>\S+)(?P<hashes>(?: *\\\n +--hash=\S+)*)\n?", re.MULTILINE
)
_SHA256: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


def pins(lock: str) -> dict[str, str]:
    """Return name -> version of every pin of a lock's text."""
    return {match["name"]: match["version"] for match in _PIN.finditer(lock)}


def hashes(lock: str) -> dict[str, frozenset[str]]:
    """Return name -> the sha256 digests, in hex, of every pin of a lock's text."""
    return {match["name"]: frozenset(_SHA256.findall(match["hashes"])) for match in _PIN.finditer(lock)}


def without(lock: str, names: Collection[str]) -> str:
    """Return a lock's text without the pins of the given names."""
    return _PIN.sub(lambda match: "" if match["name"] in names else match[0], lock)
