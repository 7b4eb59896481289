"""Clients: what an operator may write, and what each mistake is answered with."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from rackserve import edge
from rackserve.errors import InputError

ONE, OTHER = "1" * 64, "2" * 64


def client(**changes: Any) -> dict[str, Any]:
    base = {"name": "a", "keys": [{"sha256": ONE}]}
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def test_a_client_needs_a_name_and_a_key_only() -> None:
    (parsed,) = edge.parse_clients([client()], ["m"])
    assert (parsed.models, parsed.suspended, parsed.keys[0].revoked) == (None, False, False)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2027-01-31", "2027-02-01T00:00:00+00:00"),
        (dt.date(2027, 1, 31), "2027-02-01T00:00:00+00:00"),
        ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00+00:00"),
        (dt.datetime(2027, 1, 31, 12), "2027-01-31T12:00:00+00:00"),  # noqa: DTZ001 - as YAML gives it
    ],
)
def test_a_day_ends_at_its_end_and_a_moment_is_in_utc(written: object, moment: str) -> None:
    (parsed,) = edge.parse_clients([client(keys=[{"sha256": ONE, "expires": written}])], ["m"])
    assert parsed.keys[0].expires == dt.datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    ("raw", "reasons"),
    [
        ([], ["there is no client", "rackserve key new"]),
        ([client(keys=None)], ["client 'a'", "'keys' is missing"]),
        ([client(keys=[])], ["client 'a'", "keys", "at least 1"]),
        ([client(keys=[{"sha256": "rsk-secret"}])], ["client 'a'", "keys.1.sha256", "64 hex digits"]),
        ([client(keys=[{"sha256": ONE, "expire": 1}])], ["unknown key 'keys.1.expire'", "expires"]),
        ([client(keys=[{"sha256": ONE, "expires": "soon"}])], ["keys.1.expires", "2027-01-31", "'soon'"]),
        ([client(rate=3)], ["unknown key 'rate'", "requests_per_minute"]),
        ([client(requests_per_minute=0)], ["requests_per_minute", "found 0"]),
        ([client(concurrent=0)], ["concurrent", "found 0"]),
        ([client(name="A b")], ["client 'A b'", "name"]),
        ([client(models=["x"])], ["client 'a'", "no instance serves 'x'", "serves m"]),
        ([client(models=[])], ["models", "at least 1"]),
        ([client(), client(keys=[{"sha256": OTHER}])], ["client name 'a' is used 2 times"]),
        ([client(), client(name="b")], ["key 111111111111 is used 2 times (a, b)"]),
        (["a"], ["'a'", "valid dictionary"]),
    ],
)
def test_a_mistake_names_client_key_and_what_to_set(raw: list[Any], reasons: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        edge.parse_clients(raw, ["m"])
    for reason in reasons:
        assert reason in str(refused.value)


def test_a_key_in_the_place_of_its_hash_is_not_repeated_in_the_message() -> None:
    key = edge.new_key().key
    with pytest.raises(InputError) as refused:
        edge.parse_clients([client(keys=[{"sha256": key}])], ["m"])
    assert key not in str(refused.value)


def test_every_new_key_is_another_and_fits_its_hash() -> None:
    made = {edge.new_key() for _ in range(100)}
    assert len({one.key for one in made}) == 100
    assert all(edge.hash_of(one.key) == one.sha256 and len(one.key) == 47 for one in made)
