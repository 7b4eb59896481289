"""What clients and metrics are told: errors in one shape, whose fault they are, and when the first token came."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from testing.local_edge import Edge, Engine, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

PLACE = 'client="roomy",model="small"'
FASTAPI = {"detail": [{"loc": ["body", "n"], "msg": "must be positive"}, {"loc": ["body"], "msg": "too many"}]}
FLAT = {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400}
RIGHT = {"error": {"message": "said by the engine", "type": "NotFoundError", "param": None, "code": 404}}


def telling(status: int, text: str, kind: str = "application/json") -> Callable[[Engine, bytes], None]:
    return lambda engine, _: engine.tell(status, text, kind)


@pytest.mark.parametrize(
    ("status", "text", "message", "kind"),
    [
        (400, '{"detail":"There was an error"}', "There was an error", "invalid_request_error"),
        (422, json.dumps(FASTAPI), "body.n: must be positive; body: too many", "invalid_request_error"),
        (400, json.dumps(FLAT), "too long", "BadRequestError"),
        (500, "Internal Server Error", "Internal Server Error", "server_error"),
        (500, "", "The engine answered 500.", "server_error"),
        (413, "<html>no</html>", "The engine answered 413.", "invalid_request_error"),
        (400, "[1]", "The engine answered 400.", "invalid_request_error"),
        (400, '{"detail":"' + "a" * 100000 + '"}', "a" * 100000, "invalid_request_error"),
    ],
)
def test_an_engines_error_comes_in_openais_shape(nginx: Edge, status: int, text: str, message: str, kind: str) -> None:
    nginx.engines.answer = telling(status, text, "text/plain")
    answer = nginx.complete(prompt="a")
    assert (answer.status, answer.error["message"]) == (status, message)
    assert (answer.error["type"], answer.error["code"], answer.error["param"]) == (kind, status, None)
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers.get("x-should-retry") == ("false" if status == 500 else None)


def test_an_error_in_that_shape_and_an_answer_stay_as_they_are(nginx: Edge) -> None:
    for status, text in ((404, json.dumps(RIGHT)), (200, '{"detail": "no error"}'), (400, '{"error":{"a":1}}')):
        nginx.engines.answer = telling(status, text)
        answer = nginx.complete(prompt="a")
        assert (answer.status, answer.text) == (status, text)


def test_a_large_error_is_passed_on_whole(nginx: Edge) -> None:
    text = '{"detail":"' + "a" * 1_000_000 + '"}'
    nginx.engines.answer = telling(400, text)
    assert nginx.complete(prompt="a").text == text


def test_an_error_on_the_path_of_anthropics_has_its_shape(nginx: Edge) -> None:
    nginx.engines.answer = telling(400, '{"detail":"no"}')
    answer = nginx.ask("/v1/messages", {"model": "small", "messages": []})
    assert json.loads(answer.text)["type"] == "error"


def test_the_log_has_the_method_of_the_client(nginx: Edge) -> None:
    nginx.ask("/no", {})
    nginx.ask("/v1/models", {})
    nginx.ask("/v1/completions", {}, headers={"Content-Length": str(11 << 20)})
    answered_by_nginx = {404, 405, 413}  # workers write the log, each when it gets to it
    wait_for(lambda: answered_by_nginx <= {line["status"] for line in nginx.log()})
    assert {line["method"] for line in nginx.log() if line["status"] in answered_by_nginx} == {"POST"}


GRAMMARS: dict[str, dict[str, Any]] = {
    "a schema": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}},
    "a structure": {"structured_outputs": {"json": {"$ref": "#"}}},
    "a regex": {"guided_regex": "(a|b)*"},
    "a tool that must be called": {"tools": [{"function": {"parameters": {"$ref": "#"}}}], "tool_choice": "required"},
}
NONE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "any JSON": {"response_format": {"type": "json_object"}},
    "tools": {"tools": [{"function": {"parameters": {}}}], "tool_choice": "auto"},
    "null": {"structured_outputs": None, "guided_json": None, "tool_choice": None, "tools": []},
}


def counted(nginx: Edge, asked: dict[str, Any], answer: Callable[[Engine, bytes], None]) -> set[str]:
    """Ask and return the series of statuses that grew."""
    nginx.engines.answer = answer
    before = nginx.series()
    nginx.complete(prompt="a", **asked)
    wait_for(lambda: any(name.startswith("requests_total") for name in nginx.grown(before)))
    return {name for name in nginx.grown(before) if "requests_total" in name}


@pytest.mark.parametrize("asked", GRAMMARS.values(), ids=GRAMMARS)
def test_an_engines_500_that_a_clients_grammar_may_have_caused_is_counted_apart(
    nginx: Edge, asked: dict[str, Any]
) -> None:
    assert counted(nginx, asked, telling(500, "{}")) == {
        f'requests_total{{{PLACE},status="500_grammar"}}',
        'upstream_requests_total{upstream="gpu1:a",status="500_grammar"}',
    }


@pytest.mark.parametrize("asked", NONE.values(), ids=NONE)
def test_any_other_500_is_the_engines(nginx: Edge, asked: dict[str, Any]) -> None:
    assert counted(nginx, asked, telling(500, "{}")) == {
        f'requests_total{{{PLACE},status="500"}}',
        'upstream_requests_total{upstream="gpu1:a",status="500"}',
    }


def close(engine: Engine, _: bytes) -> None:
    engine.close_connection = True


def test_an_engine_that_is_lost_counts_also_with_a_grammar(nginx: Edge) -> None:
    assert f'requests_total{{{PLACE},status="502"}}' in counted(nginx, GRAMMARS["a schema"], close)


BROKEN = 'upstream_broken_answers_total{upstream="gpu1:a"}'
ERROR = 'data: {"error": {"message": "the engine died"}}\n\n'


def broken_off(engine: Engine, _: bytes) -> None:
    """Begin a stream, and close the connection before its end."""
    engine.send_response(200)
    engine.send_header("Content-Type", "text/event-stream")
    engine.send_header("Transfer-Encoding", "chunked")
    engine.end_headers()
    engine.wfile.write(b"a\r\ndata: {}\n\n\r\n")
    engine.wfile.flush()
    time.sleep(0.2)
    engine.close_connection = True


def cut_short(engine: Engine, _: bytes) -> None:
    """Announce more of an answer than comes."""
    engine.send_response(200)
    engine.send_header("Content-Type", "application/json")
    engine.send_header("Content-Length", "100")
    engine.end_headers()
    engine.wfile.write(b'{"a": ')
    engine.wfile.flush()
    engine.close_connection = True


def erring(engine: Engine, _: bytes) -> None:
    engine.stream([(0, "data: {}\n\n"), (0.05, ERROR), (0.05, "data: [DONE]\n\n")])


def quoting(engine: Engine, _: bytes) -> None:
    """Say in an answer what an error looks like."""
    said = json.dumps({"choices": [{"delta": {"content": ERROR}}]})
    engine.stream([(0, f"data: {said}\n\n"), (0, "data: [DONE]\n\n")])


def asked_for(nginx: Edge, answer: Callable[[Engine, bytes], None], **asked: Any) -> float:
    """Ask, and return how many answers of the instance were counted as broken."""
    nginx.engines.answer = answer
    before = nginx.series()
    with contextlib.suppress(http.client.HTTPException, OSError):
        nginx.complete(prompt="a", **asked)
    wait_for(lambda: any(name.startswith("requests_total") for name in nginx.grown(before)))
    return nginx.grown(before).get(BROKEN, 0)


def test_the_counter_of_broken_answers_begins_at_zero(nginx: Edge) -> None:
    assert {name for name in nginx.series() if name.startswith("upstream_broken")} >= {BROKEN}


@pytest.mark.parametrize("answer", [broken_off, cut_short, erring])
def test_an_answer_that_an_engine_breaks_off_is_counted(nginx: Edge, answer: Callable[[Engine, bytes], None]) -> None:
    assert asked_for(nginx, answer) == 1


@pytest.mark.parametrize("answer", [quoting, telling(200, "{}"), telling(500, "{}")])
def test_another_answer_is_not(nginx: Edge, answer: Callable[[Engine, bytes], None]) -> None:
    assert asked_for(nginx, answer) == 0


def test_an_error_that_a_grammar_may_have_caused_is_not(nginx: Edge) -> None:
    assert asked_for(nginx, erring, **GRAMMARS["a schema"]) == 0


def test_a_client_that_hangs_up_breaks_no_answer(nginx: Edge) -> None:
    nginx.engines.answer = lambda engine, _: engine.stream([(0.1, "data: {}\n\n")] * 15)
    before, body = nginx.series(), json.dumps({"model": "small", "prompt": "a"}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer rsk-roomy\r\n"
    link = nginx.connect()
    link.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    link.recv(1000)
    time.sleep(0.3)
    link.close()
    wait_for(lambda: any(name.startswith("requests_total") for name in nginx.grown(before)))
    assert BROKEN not in nginx.grown(before)


SAID = "data: {}\n\n"
PIECES: dict[str, list[str]] = {
    "a comment": [": keep-alive\n\n"],
    "comments": [":\n\n", ": a\n\n: b\n", ":"],
    "half a comment": [": data", ": {}\n", "\n"],
    "a long comment": [":" + "a" * 5000, "data: {}", "\n\n"],
    "lines of two bytes": [": a\r\n\r\n", "event: ping\r\ndata: {}\r\n\r\n"],
    "a ping": ["event: ping\ndata: {}\n\n"],
    "half a ping": ["event: p", "ing\nda", "ta: {}\n", "\n"],
    "other fields": ["retry: 3000\n\n", "id: 1\n\n"],
    "the request was taken": ["event: response.created\ndata: {}\n\nevent: response.in_progress\ndata: {}\n\n"],
    "a message begins": ["event: message_start\ndata: {}\n\n"],
}
FIRST = {
    "data": SAID,
    "data without a blank": "data:{}\n\n",
    "half of it": "data: {",
    "an event": "event: content_block_delta\ndata: {}\n\n",
    "after a comment in one piece": ": a\n\ndata: {}\n\n",
}


def first_byte(nginx: Edge, pieces: list[tuple[float, str]]) -> float:
    nginx.engines.answer = lambda engine, _: engine.stream(pieces)
    lines = len(nginx.log())
    assert nginx.complete(prompt="a", stream=True).text == "".join(text for _, text in pieces)
    wait_for(lambda: len(nginx.log()) > lines)
    return float(nginx.log()[-1]["first_byte"] or -1)


@pytest.mark.parametrize("before", PIECES.values(), ids=PIECES)
def test_what_is_no_token_is_not_the_first_byte(nginx: Edge, before: list[str]) -> None:
    series = nginx.series()
    assert first_byte(nginx, [*((0.05, text) for text in before), (0.3, SAID), (0.3, SAID)]) >= 0.35
    wait_for(lambda: f"first_byte_seconds_count{{{PLACE}}}" in nginx.grown(series))
    assert nginx.grown(series)[f"first_byte_seconds_sum{{{PLACE}}}"] >= 0.35


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_the_first_data_is_the_first_byte(nginx: Edge, first: str) -> None:
    assert 0 <= first_byte(nginx, [(0, first), (1, SAID)]) < 0.9


def test_a_stream_without_data_has_no_first_byte(nginx: Edge) -> None:
    series = nginx.series()
    assert first_byte(nginx, [(0, ": a\n\n"), (0, ": b\n\n")]) == -1
    assert not any(name.startswith("first_byte") for name in nginx.grown(series))


def test_a_request_that_was_sent_to_an_engine_must_not_be_repeated(nginx: Edge) -> None:
    nginx.engines.answer = close
    lost = nginx.complete(prompt="a")
    assert (lost.status, lost.headers["x-should-retry"]) == (502, "false")


def test_a_request_that_no_engine_has_had_may_be_repeated(run: Callable[..., Any]) -> None:
    with run(instances={"gpu1:a": {"served_names": ["small"], "port": free_port()}}) as found:
        refused = found.complete(prompt="a")
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert "x-should-retry" not in refused.headers
