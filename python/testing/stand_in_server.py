"""A stand-in for an edge with an engine: a real HTTP server on loopback that streams chats as vLLM does, or misbehaves.

It proves that what is sent and timed is right; it says nothing of how fast an engine is.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Behaviour:
    """How requests are answered; `turns` are taken one by one before `default` holds for ever."""

    first_s: float = 0.03
    gap_s: float = 0.01
    default: str = "ok"
    turns: deque[str] = field(default_factory=deque)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    """Answers POST /v1/chat/completions."""

    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep silent."""

    def do_POST(self) -> None:
        """Answer by the behaviour's turn."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        behaviour = self.behaviour
        with behaviour.lock:
            behaviour.requests.append(body)
            behaviour.keys.append(self.headers.get("Authorization"))
            turn = behaviour.turns.popleft() if behaviour.turns else behaviour.default
            behaviour.open += 1
            behaviour.most_open = max(behaviour.most_open, behaviour.open)
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._refuse(int(turn)) if turn.isdigit() else self._stream(turn, int(body["max_tokens"]))
        finally:
            with behaviour.lock:
                behaviour.open -= 1

    def _refuse(self, status: int) -> None:
        data = json.dumps({"error": {"message": f"refused with {status}", "code": str(status)}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, turn: str, tokens: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        time.sleep(60 if turn == "hang" else self.behaviour.first_s)
        for number in range(tokens):
            if number:
                time.sleep(self.behaviour.gap_s)
            self._event({"choices": [{"delta": {"content": f"w{number} "}}]})
            if turn == "error":
                self._event({"error": {"message": "the engine died", "code": 500}})
                break
            if turn == "cut":
                self.close_connection = True
                return
            if turn == "garbage":
                self._chunk(b"data: {not json\n\n")
        if turn != "no usage":
            self._event({"choices": [], "usage": {"prompt_tokens": 70, "completion_tokens": tokens}})
        if turn != "no end":
            self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, event: dict[str, Any]) -> None:
        self._chunk(f"data: {json.dumps(event)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


@contextlib.contextmanager
def serving(behaviour: Behaviour, kind: type[Handler] = Handler) -> Iterator[str]:
    """Serve on a free port of loopback and give the address."""
    handler = type("Bound", (kind,), {"behaviour": behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
