"""STAND-IN of a host whose clock is five seconds ahead: hands on what its real exporter tells, with another time.

The lab's hosts share the controller's clock, which a test cannot set. It shows that an offset in the numbers pages; not
that the exporter reads a clock that was moved.
"""

import http.server
import re
import sys
import urllib.request

TIME = re.compile(r"(?m)^(node_time_seconds) (\S+)$")


class Exporter(http.server.BaseHTTPRequestHandler):
    """Answers every path with the metrics."""

    def do_GET(self) -> None:
        """Answer."""
        with urllib.request.urlopen("http://127.0.0.1:9101/metrics", timeout=5) as told:
            text = told.read().decode()
        body = TIME.sub(lambda found: f"{found[1]} {float(found[2]) + 5}", text).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


http.server.ThreadingHTTPServer((sys.argv[1], 9100), Exporter).serve_forever()
