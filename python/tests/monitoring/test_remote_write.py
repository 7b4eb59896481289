"""From the inventory's receivers of samples to Prometheus's remote_write."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.errors import InputError
from rackserve.monitoring import remote_write_entries, remote_write_files

FAR: dict[str, Any] = {"name": "far", "url": "https://far.example/api/v1/write"}
WITH_PASSWORD = {**FAR, "username": "site", "password_src": "/c/p", "ca_src": "/c/ca.crt"}
WITH_TOKEN = {**FAR, "name": "near", "token_src": "/c/t", "queue_config": {"max_shards": 2}}


def test_secrets_are_named_by_file() -> None:
    assert remote_write_entries([WITH_PASSWORD, WITH_TOKEN], "/etc/r") == [
        {
            "name": "far",
            "url": "https://far.example/api/v1/write",
            "basic_auth": {"username": "site", "password_file": "/etc/r/far.password"},
            "tls_config": {"ca_file": "/etc/r/far.ca"},
        },
        {
            "name": "near",
            "url": "https://far.example/api/v1/write",
            "authorization": {"credentials_file": "/etc/r/near.token"},
            "queue_config": {"max_shards": 2},
        },
    ]
    assert remote_write_files([WITH_PASSWORD, WITH_TOKEN], "/etc/r") == {
        "/etc/r/far.password": "/c/p",
        "/etc/r/far.ca": "/c/ca.crt",
        "/etc/r/near.token": "/c/t",
    }


def test_without_receivers_there_is_no_remote_write() -> None:
    assert (remote_write_entries([], "/etc/r"), remote_write_files([FAR], "/etc/r")) == ([], {})


@pytest.mark.parametrize(
    ("receiver", "reason"),
    [
        ({**FAR, "url": "https://site:hunter2@far.example/w"}, "receiver 'far': url: "),
        ({**FAR, "basic_auth": {"password": "hunter2"}}, "receiver 'far': unknown key 'basic_auth'"),
        ({**FAR, "username": "site"}, "username and password_src belong together"),
        ({**WITH_PASSWORD, "token_src": "/c/t"}, "username and token_src are both set"),
        ({"url": FAR["url"]}, "receiver number 1: 'name' is missing; set it"),
        ("hunter2", "receiver number 1: "),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_shown(receiver: object, reason: str) -> None:
    with pytest.raises(InputError) as refused:
        remote_write_entries([receiver], "/etc/r")
    assert reason in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_name_is_of_one() -> None:
    with pytest.raises(InputError, match="the name far is taken"):
        remote_write_files([FAR, FAR], "/etc/r")
