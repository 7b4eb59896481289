"""A client's key: made once, shown once, and stored by its hash only."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, NamedTuple

PREFIX: Final = "rsk-"
_RANDOM_BYTES: Final = 32


class MadeKey(NamedTuple):
    """A new key and its hash, which the edge stores."""

    key: str
    sha256: str


def new_key() -> MadeKey:
    """Make a key of 256 random bits: too many to guess, so that a plain hash of it needs no salt."""
    key = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return MadeKey(key, hash_of(key))


def hash_of(key: str) -> str:
    """Return the hash of a key, as an inventory has it."""
    return hashlib.sha256(key.encode()).hexdigest()
