"""OpenAI's library raises its own class for every refusal, with message, type and code."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import openai
import pytest

from testing.edge import ENGINES, configured, engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testinfra.host import Host

    Connect = Callable[..., openai.OpenAI]
    Case = tuple[Callable[[openai.OpenAI], object], dict[str, Any], type[openai.APIStatusError], int, str, object]

ALL = tuple(map(str, ENGINES))
FAILS_ITSELF = r's/edge\.route\(.*\)/error("on purpose")/'


def _complete(client: openai.OpenAI, model: str = "small", **more: Any) -> object:  # noqa: ANN401
    return client.completions.create(model=model, prompt="a", **more)


def _post(client: openai.OpenAI, path: str = "/completions", **more: Any) -> object:  # noqa: ANN401
    return client.post(path, cast_to=object, **more)


def _flood(connect: Connect, key: str) -> None:
    for _ in range(8):
        _complete(connect(key, max_retries=0))


def _failing(failure: str) -> dict[str, Any]:
    return {"extra_body": {"fail": dict.fromkeys(ALL, failure)}}


def _trickle() -> Iterator[bytes]:
    """Send a body so slowly that no pause is long, and the whole is."""
    yield b'{"model": "small", "prompt": "'
    for _ in range(100):
        time.sleep(1)
        yield b"a"


SLOWLY: dict[str, Any] = {
    "content": _trickle(),
    "options": {"headers": {"Content-Length": "300", "Content-Type": "application/json"}},
}
BAD, DENIED, LOST, WAIT, FAILED, OTHER = (
    openai.BadRequestError,
    openai.PermissionDeniedError,
    openai.NotFoundError,
    openai.RateLimitError,
    openai.InternalServerError,
    openai.APIStatusError,
)
# What is asked, with which key and base; the library's class, the status, type and code of the error.
ROOMY: dict[str, Any] = {}
CASES: dict[str, Case] = {
    "400 no model": (lambda c: _post(c, body={}), ROOMY, BAD, 400, "invalid_request_error", "invalid_request"),
    "401": (_complete, {"key": "rsk-no"}, openai.AuthenticationError, 401, "invalid_request_error", "invalid_api_key"),
    "403": (_complete, {"key": "rsk-gone"}, DENIED, 403, "permission_error", "client_suspended"),
    "404 model": (lambda c: _complete(c, "gpt-4"), ROOMY, LOST, 404, "invalid_request_error", "model_not_found"),
    "404 path": (lambda c: _post(c, "/audio/speech", body={}), ROOMY, LOST, 404, "invalid_request_error", 404),
    "405": (lambda c: c.get("/completions", cast_to=object), ROOMY, OTHER, 405, "invalid_request_error", 405),
    "408": (lambda c: _post(c, **SLOWLY), ROOMY, OTHER, 408, "invalid_request_error", "request_timeout"),
    "413": (lambda c: _complete(c, user="a" * (11 << 20)), ROOMY, OTHER, 413, "invalid_request_error", 413),
    "414": (lambda c: _post(c, "/" + "a" * 9000, body={}), ROOMY, OTHER, 414, "invalid_request_error", 414),
    "431, nginx's 494": (
        lambda c: _complete(c, extra_headers={"X-Long": "a" * 9000}), ROOMY, OTHER, 431, "invalid_request_error", 431,
    ),
    "400, nginx's 497": (_complete, {"base": "http://{}:443/v1"}, BAD, 400, "invalid_request_error", 400),
    "500 of an engine": (lambda c: _complete(c, **_failing("500")), ROOMY, FAILED, 500, "InternalServerError", 500),
    "502": (lambda c: _complete(c, **_failing("close")), ROOMY, FAILED, 502, "server_error", 502),
    "503 of an engine": (lambda c: _complete(c, **_failing("503")), ROOMY, FAILED, 503, "InternalServerError", 503),
    "504": (lambda c: _complete(c, **_failing("hang")), ROOMY, FAILED, 504, "server_error", 504),
}  # fmt: skip


def check(raised: openai.APIStatusError, status: int, kind: str, code: object) -> None:
    """Hold an error against what it must tell."""
    assert raised.status_code == status
    assert raised.response.headers["content-type"].startswith("application/json")
    body: Any = raised.body
    assert body["message"]
    assert body["message"] in raised.message
    assert (raised.type, body["code"]) == (kind, code)
    assert ("retry-after" in raised.response.headers) == (status in (429, 503))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_refusal_is_raised_as_the_librarys_own_class(host: Host, connect: Connect, case: Case) -> None:
    ask, options, kind, status, type_, code = case
    with engines(host), pytest.raises(kind) as raised:
        ask(connect(max_retries=0, **options))
    assert type(raised.value) is kind
    check(raised.value, status, type_, code)


def test_429_of_a_key(host: Host, connect: Connect) -> None:
    with engines(host), pytest.raises(openai.RateLimitError) as raised:
        _flood(connect, "rsk-tight")
    check(raised.value, 429, "rate_limit_error", "rate_limit_exceeded")


def test_429_of_an_address(host: Host, connect: Connect) -> None:
    with (
        configured(host, r"s/rate=[0-9]+r/rate=1r/; s/burst=[0-9]+/burst=1/"),
        engines(host),
        pytest.raises(openai.RateLimitError) as raised,
    ):
        _flood(connect, "rsk-roomy")
    check(raised.value, 429, "rate_limit_error", 429)


def test_500_of_the_edge_itself(host: Host, connect: Connect) -> None:
    with configured(host, FAILS_ITSELF), pytest.raises(openai.InternalServerError) as raised:
        _complete(connect(max_retries=0))
    check(raised.value, 500, "server_error", 500)


def test_503_when_every_engine_is_down(connect: Connect, record_property: Callable[[str, object], None]) -> None:
    client, took = connect(max_retries=0), []
    for _ in range(20):
        began = time.monotonic()
        with pytest.raises(openai.InternalServerError) as raised:
            _complete(client)
        took.append(time.monotonic() - began)
        check(raised.value, 503, "server_error", 503)
    print(
        f"all engines down: slowest of 20 refusals {max(took) * 1000:.0f} ms, median {sorted(took)[10] * 1000:.0f} ms"
    )
    record_property("slowest_refusal_ms", round(max(took) * 1000))
