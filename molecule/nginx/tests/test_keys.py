"""Who is let in, how often, and to which models; nobody else's requests suffer for it."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from testing.edge import ROOMY, TIGHT, ask, completion, engines, error, in_flight, request, seen, together

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

MODELS = ("GET", "/v1/models")


@pytest.mark.parametrize(
    ("key", "status", "word"),
    [
        (None, 401, "No API key"),
        ("rsk-guess", 401, "Unknown API key"),
        ("rsk-tight-expired", 401, "expired"),
        ("rsk-tight-revoked", 401, "revoked"),
        ("rsk-gone", 403, "suspended"),
    ],
)
def test_a_key_that_does_not_hold_is_refused(host: Host, key: str | None, status: int, word: str) -> None:
    (answer,) = ask(host, request(*MODELS, key=key))
    assert answer["status"] == status
    assert word in error(answer)["message"]


def test_a_key_sees_its_own_models_only(host: Host) -> None:
    roomy, tight = ask(host, request(*MODELS, key=ROOMY), request(*MODELS, key=TIGHT))
    assert [model["id"] for model in json.loads(roomy["text"])["data"]] == ["adapter", "large", "small", "vectors"]
    assert [model["id"] for model in json.loads(tight["text"])["data"]] == ["small"]


def test_a_model_that_a_key_may_not_use_does_not_exist_for_it(host: Host) -> None:
    time.sleep(5)  # what the tests before have used
    (answer,) = ask(host, completion("large", key=TIGHT))
    assert (answer["status"], error(answer)["code"], error(answer)["param"]) == (404, "model_not_found", "model")
    assert error(answer)["message"].endswith("this key may use: small.")


def test_a_key_over_its_rate_is_told_when_to_come_back_and_no_other_key_is(host: Host) -> None:
    time.sleep(5)
    flood = [request(*MODELS, key=TIGHT) for _ in range(100)]
    others = [request(*MODELS, key=ROOMY) for _ in range(100)]
    answers = together(host, [one for pair in zip(flood, others, strict=True) for one in pair])
    refused = [answer for answer in answers[::2] if answer["status"] == 429]
    assert 93 <= len(refused) <= 96
    assert error(refused[0])["type"] == "rate_limit_error"
    assert {answer["status"] for answer in answers[1::2]} == {200}
    wait = int(refused[-1]["headers"]["retry-after"])
    time.sleep(wait)
    assert ask(host, request(*MODELS, key=TIGHT))[0]["status"] == 200


def test_a_key_has_no_more_open_requests_than_it_may_and_gets_them_back(host: Host) -> None:
    time.sleep(5)
    with engines(host):
        answers = together(host, [completion(key=TIGHT, max_tokens=3, pause=0.5) for _ in range(5)])
        assert sorted(answer["status"] for answer in answers) == [200, 200, 200, 429, 429]
        assert "has 3 requests open" in error(next(a for a in answers if a["status"] == 429))["message"]
        time.sleep(4)
        assert ask(host, completion(key=TIGHT))[0]["status"] == 200


def test_a_key_is_rotated_and_no_stream_breaks(host: Host, play: Play) -> None:
    variables = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text(encoding="utf-8"))
    clients: list[dict[str, Any]] = variables["nginx_clients"]
    fresh = {"sha256": hashlib.sha256(b"rsk-fresh").hexdigest()}
    clients[0]["keys"] = [{"sha256": hashlib.sha256(ROOMY.encode()).hexdigest(), "revoked": True}, fresh]
    with engines(host):
        with in_flight(host, [completion(max_tokens=40, pause=1) for _ in range(50)]) as answers:
            done = play("molecule/nginx/converge.yml", {"nginx_clients": clients}, "--tags", "nginx")
            assert done.returncode == 0, done.stdout
            old, new = ask(host, request(*MODELS), request(*MODELS, key="rsk-fresh"))
            assert (old["status"], new["status"]) == (401, 200)
        assert [answer for answer in answers if answer["status"] != 200 or "broken" in answer] == []
    done = play("molecule/nginx/converge.yml", {}, "--tags", "nginx")
    assert done.returncode == 0, done.stdout
    assert ask(host, request(*MODELS))[0]["status"] == 200


def test_nothing_of_the_client_reaches_an_engine_but_its_body(host: Host) -> None:
    with engines(host):
        sent = completion()
        sent["headers"] |= {"Cookie": "a=b", "X-Forwarded-For": "192.0.2.1", "X-Other": "x", "Host": "evil.example"}
        assert ask(host, sent)[0]["status"] == 200
        ((_, _, _, headers),) = seen(host)
    assert {name.lower() for name in headers} <= {
        "host",
        "content-type",
        "content-length",
        "accept",
        "x-request-id",
        "x-forwarded-for",
    }
    assert headers["Host"] == "vllm"
    assert headers["X-Forwarded-For"] == sent["source"]
