"""Answers a scrape that has the token of the test, and no other, until it is stopped."""

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "Bearer canary-of-a-scrape"
        self.send_response(HTTPStatus.OK if known else HTTPStatus.UNAUTHORIZED)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"site_value 1\n")

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", 7300), Exporter).serve_forever()
