"""`nginx_clients`: the clients of the fleet, their keys, limits and models."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from rackserve._schema import Strict, parse_items
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Errors whose value may be shown: not a key in the place of its hash, nor the value of an unknown key.
_SHOWN: Final = frozenset({"value_error", "greater_than_equal", "string_pattern_mismatch", "too_short", "model_type"})
_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"


class Key(Strict):
    """One key of a client, by its hash. Two keys, the older with an expiry, make a rotation."""

    sha256: str = Field(description="SHA-256 of the key, 64 hex digits; `rackserve key new` prints it.")
    expires: dt.datetime | None = Field(
        default=None,
        description="Last day (UTC), or moment, that the key is accepted; unset never expires.",
    )
    revoked: bool = Field(default=False, description="Whether the key is refused.")

    @field_validator("sha256")
    @classmethod
    def _a_hash(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9a-f]{64}", value):
            raise PydanticCustomError(
                "not_a_hash",
                "not the hash of a key, which has 64 hex digits; `rackserve key new` and `key hash` print it",
            )
        return value

    @field_validator("expires", mode="before")
    @classmethod
    def _as_moment(cls, value: object) -> object:
        """Read a day as its end, and a time without a zone as UTC."""
        if isinstance(value, str):
            try:
                value = (
                    dt.date.fromisoformat(value)
                    if len(value) == len("2027-01-31")
                    else dt.datetime.fromisoformat(value)
                )
            except ValueError:
                raise ValueError("write a day as 2027-01-31 or a moment as 2027-01-31T12:00:00Z") from None
        if isinstance(value, dt.datetime):
            return value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        if isinstance(value, dt.date):
            return dt.datetime.combine(value + dt.timedelta(days=1), dt.time(), dt.UTC)
        return value


class Client(Strict):
    """One client."""

    name: str = Field(
        pattern=_NAME,
        description="Name of the client in logs and metrics: lower-case letters, digits, `.`, `_` and `-`.",
    )
    keys: list[Key] = Field(min_length=1, description="API keys of the client; two at once make a rotation.")
    requests_per_minute: int = Field(default=600, ge=1, description="Steady rate of requests.")
    burst: int = Field(default=60, ge=0, description="Requests above that rate that are accepted at once.")
    concurrent: int = Field(default=64, ge=1, description="Requests that may be open at once.")
    models: list[str] | None = Field(
        default=None, min_length=1, description="Served names that the client may use; unset allows all of the fleet."
    )
    certificates: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Subjects of client certificates (RFC 2253, `CN=search,O=Example`) without which the keys are "
        "refused; unset requires none of its own.",
    )
    suspended: bool = Field(default=False, description="Whether the client is blocked with all its keys.")


def parse_clients(raw: Sequence[dict[str, Any]], models: Sequence[str]) -> tuple[Client, ...]:
    """Check the clients of an edge against the names of the models that the fleet serves.

    Raises:
        InputError: naming every wrong client and key, the value found and what to set.
    """
    parsed, problems = parse_items(raw, Client, "client", shown=_SHOWN)
    names = Counter(client.name for client in parsed)
    problems += [f"client name {name!r} is used {n} times; give each its own" for name, n in names.items() if n > 1]
    problems += [
        f"client {client.name!r}: models: no instance serves {model!r}; the fleet serves {', '.join(sorted(models))}"
        for client in parsed
        for model in client.models or ()
        if model not in models
    ]
    problems += _shared_keys(parsed)
    if not raw:
        problems.append(
            "there is no client, so every request would be refused; make a key with `rackserve key new` and add one"
        )
    if problems:
        raise InputError("nginx_clients: " + "; ".join(problems))
    return tuple(parsed)


def _shared_keys(clients: Sequence[Client]) -> list[str]:
    owners: dict[str, list[str]] = {}
    for client in clients:
        for key in client.keys:
            owners.setdefault(key.sha256, []).append(client.name)
    return [
        f"key {sha256[:12]} is used {len(names)} times ({', '.join(names)}); give each client keys of its own"
        for sha256, names in owners.items()
        if len(names) > 1
    ]
