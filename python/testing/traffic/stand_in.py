"""Answers as vLLM does to all that the clients ask, or as an engine that fails in one way.

It shows that the clients tell a good answer from a bad one; it says nothing of vLLM.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import struct
import threading
import time
import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FINGERPRINT = "vllm-0.32.0-0badcafe"
ARGUMENTS = '{"city": "Paris", "unit": "celsius"}'


class Fault(StrEnum):
    """The ways in which an answer goes wrong."""

    NONE = "none"
    STATUS_503 = "503"
    STATUS_429 = "429"
    STATUS_500 = "500"
    CLOSE = "closed before the answer"
    RESET = "reset within the answer"
    CUT = "ended within the answer"
    NO_DONE = "no [DONE]"
    AFTER_DONE = "a chunk after [DONE]"
    ERROR = "an error chunk"
    GARBAGE = "not JSON"
    SHORT = "a token too few"
    ABORT = "finish_reason abort"
    NO_FINISH = "no finish_reason"
    NO_USAGE = "no usage"
    NO_CHOICE = "no choice"
    NO_CALL = "text for a tool call"
    BAD_CALL = "arguments cut off"
    WRONG_CALL = "arguments that do not fit"
    HANG = "silence"


def answer(handler: http.server.BaseHTTPRequestHandler, body: bytes, fault: Fault = Fault.NONE) -> None:
    """Answer a request for a completion or a chat, whole or streamed."""
    asked = json.loads(body)
    if fault.value.isdigit():
        _send(
            handler, int(fault.value), json.dumps({"error": {"message": "said by the stand-in", "code": fault.value}})
        )
    elif fault is Fault.CLOSE:
        handler.close_connection = True
    elif fault is Fault.HANG:
        time.sleep(5)
        handler.close_connection = True
    elif asked.get("stream"):
        _stream(handler, asked, fault)
    else:
        _whole(handler, asked, fault)


def _tokens(asked: dict[str, Any], fault: Fault) -> int:
    return int(asked["max_tokens"]) - (fault is Fault.SHORT) - (10 if "tools" in asked else 0)


def _head(handler: http.server.BaseHTTPRequestHandler) -> dict[str, Any]:
    request = handler.headers.get("X-Request-Id", uuid.uuid4().hex)
    return {"id": f"cmpl-{request}", "system_fingerprint": FINGERPRINT, "model": "small"}


def _finish(asked: dict[str, Any], fault: Fault) -> str | None:
    named = {Fault.ABORT: "abort", Fault.NO_FINISH: None}
    return named.get(fault, "stop" if "tools" in asked else "length")


def _arguments(fault: Fault) -> str:
    return {Fault.BAD_CALL: ARGUMENTS[:-9], Fault.WRONG_CALL: '{"city": "Oslo", "unit": "celsius"}'}.get(
        fault, ARGUMENTS
    )


def _whole(handler: http.server.BaseHTTPRequestHandler, asked: dict[str, Any], fault: Fault) -> None:
    choice: dict[str, Any] = {"index": 0, "finish_reason": _finish(asked, fault)}
    if "tools" in asked and fault is not Fault.NO_CALL:
        call = {"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": _arguments(fault)}}
        choice["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    elif "messages" in asked:
        choice["message"] = {"role": "assistant", "content": "a story"}
    else:
        choice["text"] = "a story"
    usage = None if fault is Fault.NO_USAGE else {"prompt_tokens": 5, "completion_tokens": _tokens(asked, fault)}
    text = json.dumps({**_head(handler), "choices": [] if fault is Fault.NO_CHOICE else [choice], "usage": usage})
    if fault is Fault.ERROR:
        text = json.dumps({"error": {"message": "the engine died", "code": 500}})
    elif fault is Fault.GARBAGE:
        text = text[:-1]
    _send(handler, 200, text, fault)


def _send(handler: http.server.BaseHTTPRequestHandler, status: int, text: str, fault: Fault = Fault.NONE) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(text.encode())))
    handler.end_headers()
    broken = fault in {Fault.CUT, Fault.RESET}
    handler.wfile.write(text.encode()[: len(text) // 2 if broken else None])
    if broken:
        _leave(handler, fault)


def _leave(handler: http.server.BaseHTTPRequestHandler, fault: Fault) -> None:
    handler.wfile.flush()
    handler.close_connection = True
    if fault is Fault.RESET:
        time.sleep(0.05)  # what was sent is read before the reset
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The handler's files hold the descriptor: it is closed under them, so that the reset goes out now.
        with contextlib.suppress(OSError):
            socket.close(handler.connection.detach())


def _stream(handler: http.server.BaseHTTPRequestHandler, asked: dict[str, Any], fault: Fault) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for number, event in enumerate(_events(handler, asked, fault)):
        _chunk(handler, f"data: {event}\n\n".encode())
        if number == 1 and fault in {Fault.CUT, Fault.RESET}:
            _leave(handler, fault)
            return
    _chunk(handler, b"")


def _events(handler: http.server.BaseHTTPRequestHandler, asked: dict[str, Any], fault: Fault) -> Iterator[str]:
    head, chat = _head(handler), "messages" in asked

    def event(finish: str | None = None, **delta: Any) -> str:
        part = {"delta": delta} if chat else {"text": delta.get("content", "")}
        choices = [] if fault is Fault.NO_CHOICE else [{"index": 0, "finish_reason": finish, **part}]
        return json.dumps({**head, "choices": choices})

    if chat:
        yield event(role="assistant", content="")
    yield event(content="a ")
    if fault is Fault.ERROR:
        yield json.dumps({"error": {"message": "the engine died", "code": 500}})
    elif fault is Fault.GARBAGE:
        yield "{not JSON"
    if "tools" in asked and fault is not Fault.NO_CALL:
        yield event(tool_calls=[{"index": 0, "id": "call-1", "function": {"name": "get_weather", "arguments": ""}}])
        text = _arguments(fault)
        for piece in (text[:7], text[7:]):
            yield event(tool_calls=[{"index": 0, "function": {"arguments": piece}}])
    yield event(_finish(asked, fault), content="story")
    if fault is not Fault.NO_USAGE:
        usage = {"prompt_tokens": 5, "completion_tokens": _tokens(asked, fault)}
        yield json.dumps({**head, "choices": [], "usage": usage})
    if fault is not Fault.NO_DONE:
        yield "[DONE]"
    if fault is Fault.AFTER_DONE:
        yield event(content="more")


def _chunk(handler: http.server.BaseHTTPRequestHandler, data: bytes) -> None:
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
    handler.wfile.flush()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Say nothing of a connection that was broken on purpose."""


@contextlib.contextmanager
def serving(fault_of: Callable[[int], Fault]) -> Iterator[str]:
    """Serve on a free port of the loopback, and give the address.

    Args:
        fault_of: the fault of a request by its number, from 0.
    """
    numbers, lock = iter(range(1 << 30)), threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                number = next(numbers)
            answer(self, body, fault_of(number))

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
