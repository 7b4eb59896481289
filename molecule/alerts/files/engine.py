"""STAND-IN of an engine: its /metrics is what a real one said (vLLM on an H200), with requests running.

Tokens come as long as /run/frozen is not there.
"""

import http.server
import pathlib
import re
import time

PAGE = pathlib.Path("/usr/local/lib/metrics.txt").read_text(encoding="utf-8").replace('"chat"', '"m"')
RUNNING = re.sub(r"(?m)^(vllm:num_requests_running\{.*\}) .*", r"\1 3.0", PAGE)
TOKENS = re.compile(r"(?m)^(vllm:generation_tokens_total\{.*\}) .*")
STARTED = time.time()


class Metrics(http.server.BaseHTTPRequestHandler):
    """Answers every path with the metrics."""

    tokens = 0.0

    def do_GET(self) -> None:
        """Answer."""
        if not pathlib.Path("/run/frozen").exists():
            Metrics.tokens = 100 * (time.time() - STARTED)
        body = TOKENS.sub(rf"\g<1> {Metrics.tokens}", RUNNING).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


http.server.ThreadingHTTPServer(("", 8000), Metrics).serve_forever()
