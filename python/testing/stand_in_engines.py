"""Stand-in for engines: answers as a vLLM server streams, one token per pause, and writes down every request that came.

It shows what the edge does with requests and streams, not what vLLM does with them: molecule/full_stack does that.
"""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time

SEEN = "/run/engines"
# Longer than the read timeout of the edges that are tested for it.
SILENCE_S = 20


class Engine(http.server.BaseHTTPRequestHandler):
    """Takes any method on any path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self) -> None:
        """Stream `max_tokens` tokens, `pause` seconds apart; `fail` says how the engine of a port fails instead."""
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        port = self.connection.getsockname()[1]
        with open(SEEN, "a", encoding="utf-8") as seen:  # noqa: PTH123 - one small write, appended as a whole
            seen.write(json.dumps([port, self.command, self.path, dict(self.headers)]) + "\n")
        failure = asked.get("fail", {}).get(str(port))
        if failure in ("close", "hang"):
            self.close_connection = True
            time.sleep(SILENCE_S if failure == "hang" else 0)
            return
        if failure in ("500", "503"):
            self.refuse(int(failure))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(asked.get("max_tokens", 1)):
            if failure == "die mid-stream" and number == 1:
                self.close_connection = True
                return
            time.sleep(asked.get("pause", 0))
            self.event(json.dumps({"port": port, "number": number, "pad": "a" * asked.get("pad", 0)}))
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def refuse(self, status: int) -> None:
        """Answer with an error in the form of vLLM."""
        error = {"message": "said by the engine", "type": "InternalServerError", "param": None, "code": status}
        text = json.dumps({"error": error}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def event(self, text: str) -> None:
        """Send one event as one chunk."""
        line = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = answer  # noqa: N815


class Server(http.server.ThreadingHTTPServer):
    """One engine."""

    daemon_threads = True
    request_queue_size = 512


if __name__ == "__main__":
    for port in sys.argv[1:]:
        threading.Thread(target=Server(("127.0.0.1", int(port)), Engine).serve_forever).start()
