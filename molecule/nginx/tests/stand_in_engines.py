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


class Engine(http.server.BaseHTTPRequestHandler):
    """Takes any method on any path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self) -> None:
        """Stream `max_tokens` tokens, `pause` seconds apart; hang up at once when `hang_up` is set."""
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        port = self.server.server_address[1]
        with open(SEEN, "a", encoding="utf-8") as seen:  # noqa: PTH123 - one small write, appended as a whole
            seen.write(json.dumps([port, self.command, self.path, dict(self.headers)]) + "\n")
        if asked.get("hang_up"):
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(asked.get("max_tokens", 1)):
            time.sleep(asked.get("pause", 0))
            self.event(json.dumps({"port": port, "number": number}))
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

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
