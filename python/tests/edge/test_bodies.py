"""Bodies: read as Python's parser reads them, in memory, without a stall, and refused with the true reason."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from testing.local_edge import Edge, Engine, wait_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

PATH = "/v1/completions"
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\n"
KEY = b"Authorization: Bearer rsk-roomy\r\n"
DEEP = 511  # levels below the body's own
OPEN = ("open_requests", "open_sequences", "held_body_bytes")
NOT_JSON = "The body is not a JSON object."
WRONG: dict[str, tuple[bytes, str]] = {
    "a list": (b"[1]", NOT_JSON),
    "a text": (b'"a"', NOT_JSON),
    "half": (b'{"a":', NOT_JSON),
    "an end too many": (b'{"a":1}}', NOT_JSON),
    "a comma too many": (b'{"a":1,}', NOT_JSON),
    "another end": (b'{"a":[1}', NOT_JSON),
    "two values": (b'{"a":1} {}', NOT_JSON),
    "NaN": (b'{"a":NaN}', NOT_JSON),
    "a leading zero": (b'{"a":01}', NOT_JSON),
    "a line in a text": (b'{"a":"\n"}', NOT_JSON),
    "a NUL": (b'{"a":1\x00}', NOT_JSON),
    "UTF-16": ('{"a":1}'.encode("utf-16-le"), NOT_JSON),
    "a mark before": (b"\xef\xbb\xbf{}", NOT_JSON),
    "not UTF-8": (b'{"model":"\xff\xfe"}', "The body is not UTF-8."),
    "half a character": (b'{"a":"\xe6\xbc"}', "The body is not UTF-8."),
    "a surrogate in UTF-8": (b'{"a":"\xed\xa0\xbd"}', "The body is not UTF-8."),
    "deep": (b'{"a":' + b"[" * (DEEP + 1) + b"]" * (DEEP + 1) + b"}", "nested deeper than 512 levels"),
    "an integer": (b'{"a":' + b"1" * 4301 + b"}", "an integer of more than 4300 digits"),
}
RIGHT: dict[str, bytes] = {
    "deep": b'{"model":"small","a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "an integer": b'{"model":"small","a":' + b"1" * 4300 + b"}",
    "a long fraction": b'{"model":"small","a":0.' + b"1" * 100000 + b"}",
    "half a surrogate pair": rb'{"model":"small","prompt":"caf\u00e9 \ud83d"}',
    "a surrogate pair": rb'{"model":"small","prompt":"\ud83d\ude00"}',
    "blanks": b' \r\n\t{ "model" : "small" , "a" : [ ] , "b" : { } , "c" : [ -0.5E+3 , null ] } \n',
    "characters": '{"model":"small","prompt":"é漢😀\u007f\u0800\uffff\U0010ffff"}'.encode(),
    "a model in escapes": rb'{"mod\u0065l":"sm\u0061ll"}',
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_what_an_engine_cannot_read_is_refused_with_the_reason(nginx: Edge, text: bytes, words: str) -> None:
    answer = nginx.ask(PATH, text)
    assert (answer.status, nginx.engines.seen) == (400, [])
    assert words in answer.error["message"]


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_what_an_engine_can_read_is_passed_on(nginx: Edge, text: bytes) -> None:
    answer = nginx.ask(PATH, text)
    assert answer.status == 200, answer.text
    assert nginx.engines.seen == [text]
    json.loads(text)


def mutations(count: int) -> Iterator[bytes]:
    """Give texts that are nearly JSON, the same in every run."""
    chance = random.Random(16)  # noqa: S311 - no secret
    base = rb'{"model":"none","a":[1,-2.5e+3,{"b":"\u00e9\\\"x"},null,true,[]],"c":{"d":{}, "e" : 0}}' + b"\n"
    alphabet = b'{}[]",:0123456789.eE+-\\untrfals \xc3\xa9\x00\n'
    for _ in range(count):
        text = bytearray(base)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(text))
            text[place : place + chance.randint(0, 2)] = bytes([chance.choice(alphabet)] * chance.randint(0, 1))
        yield bytes(text)


def test_texts_that_are_nearly_json_are_read_as_python_reads_them(nginx: Edge) -> None:
    def python(text: bytes) -> bool:
        try:
            return isinstance(json.loads(text.decode(), parse_constant=lambda _: 1 / 0), dict)
        except (ValueError, ZeroDivisionError):
            return False

    differ = []
    for text in mutations(400):
        reason = nginx.ask(PATH, text).error["message"]
        if python(text) != (reason not in (NOT_JSON, "The body is not UTF-8.")):
            differ.append((text, reason))
    assert differ == []


def test_a_model_that_does_not_exist_is_told_in_whole_characters(nginx: Edge) -> None:
    for name, shown in (("é" * 80, "é" * 50), ("a" + "é" * 80, "a" + "é" * 49), ("漢" * 40, "漢" * 33), ("x", "x")):
        answer = nginx.ask(PATH, {"model": name})
        assert answer.status == 404
        assert answer.error["message"].startswith(f"The model '{shown}' does not exist")
    assert nginx.ask(PATH, rb'{"model":"\ud83d"}').error["message"].startswith("The model '\ufffd' does not exist")


def chunks(text: bytes, size: int) -> Iterator[bytes]:
    for place in range(0, len(text), size):
        yield text[place : place + size]


def body_of(size: int) -> bytes:
    return b'{"model":"small","prompt":"' + b"a" * (size - 29) + b'"}'


@pytest.mark.parametrize(("size", "chunk"), [(200, 1), (3_000_000, 100), (10 << 20, 65536), (10 << 20, 1400)])
def test_a_body_in_chunks_reaches_an_engine_and_no_file(
    nginx: Edge, size: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[str] = []

    def look(engine: Engine, _: bytes) -> None:
        files.extend(path.name for path in (nginx.folder / "temporary/client_body").rglob("*"))
        engine.tell(200, "{}")

    monkeypatch.setattr(nginx.engines, "answer", look)
    answer = nginx.ask(PATH, chunks(body_of(size), chunk))
    assert answer.status == 200, answer.text
    assert (nginx.engines.seen, files) == ([body_of(size)], [])


def test_chunks_too_small_for_their_buffer_are_refused_with_the_reason(run: Callable[..., Any]) -> None:
    with run(nginx_max_body_mib=1) as found, found.connect() as link:
        body = b"".join(b"1\r\n%c\r\n" % byte for byte in body_of(500_000))
        link.sendall(HEAD + KEY + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + body + b"0\r\n\r\n")
        answer = read(link)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"The chunks of the body are too small for its size" in answer


def read(link: socket.socket) -> bytes:
    """Read until the other side closes."""
    found = b""
    try:
        while piece := link.recv(65536):
            found += piece
    except ConnectionError:
        pass
    return found


def test_no_body_is_told_as_that(nginx: Edge) -> None:
    for body in (b"", iter([b""])):
        answer = nginx.ask(PATH, body)
        assert (answer.status, answer.error["message"]) == (400, "The request has no body; send a JSON object.")


@pytest.mark.parametrize("size", [(10 << 20) + 2, 20 << 20])
def test_a_body_in_chunks_that_is_too_large_is_refused_and_given_back(nginx: Edge, size: int) -> None:
    with nginx.connect() as link:
        link.sendall(HEAD + KEY + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n{" % size)
        assert read(link).startswith(b"HTTP/1.1 413 ")
    wait_for(lambda: sum(nginx.series()[f'{kind}{{client="roomy"}}'] for kind in OPEN) == 0)


def test_bodies_of_one_client_have_a_bound_together_and_other_clients_have_their_own(run: Callable[..., Any]) -> None:
    released = threading.Event()

    def hold_back(engine: Engine, _: bytes) -> None:
        released.wait(30)
        engine.tell(200, "{}")

    with run(nginx_max_body_mib=2, nginx_max_bodies_mib=4) as found:
        found.engines.answer = hold_back
        open_ones = [threading.Thread(target=found.ask, args=(PATH, body_of(1_500_000))) for _ in range(2)]
        for thread in open_ones:
            thread.start()
        wait_for(lambda: len(found.engines.seen) == 2)
        assert found.series()['held_body_bytes{client="roomy"}'] == 3_000_000
        refused = found.ask(PATH, body_of(1_500_000))
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert "have bodies of 4 MiB together" in refused.error["message"]
        released.set()
        assert found.ask(PATH, body_of(60_000)).status == 200, "a small body needs no room"
        assert found.ask(PATH, body_of(1_500_000), key="rsk-tight").status == 200
        for thread in open_ones:
            thread.join()
        wait_for(lambda: found.series()['held_body_bytes{client="roomy"}'] == 0)
        assert found.ask(PATH, chunks(body_of(1_500_000), 65536)).status == 200
        wait_for(lambda: sum(value for name, value in found.series().items() if name.startswith("held")) == 0)


def test_no_go_ahead_is_given_before_a_refusal(nginx: Edge) -> None:
    expect = b"Expect: 100-continue\r\nContent-Length: 9000000\r\n\r\n"
    with nginx.connect() as link:
        link.sendall(HEAD + expect)
        answer = read(link)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"100 Continue" not in answer
    with nginx.connect() as link:
        link.sendall(HEAD + KEY + b"Expect: 100-continue\r\nContent-Length: 17\r\nConnection: close\r\n\r\n")
        assert link.recv(100).startswith(b"HTTP/1.1 100 Continue")
        link.sendall(b'{"model":"small"}')
        assert read(link).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_hangs_up_is_no_fault_of_the_edge(nginx: Edge) -> None:
    before = nginx.series()
    for number in range(6):
        link = nginx.connect()
        link.sendall(HEAD + KEY + b"Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n" + b"{" * (number % 2))
        if number > 3:
            time.sleep(0.2)
        link.close()
    wait_for(lambda: sum(value for name, value in nginx.grown(before).items() if name.startswith("requests_")) == 6)
    told = {name: value for name, value in nginx.grown(before).items() if name.startswith("requests_total")}
    assert told == {'requests_total{client="roomy",model="none",status="499"}': 6}
    wait_for(lambda: nginx.series()['open_requests{client="roomy"}'] == 0)
