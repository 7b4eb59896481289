"""keepalived's question to an edge, put to a stand-in for nginx."""

from __future__ import annotations

import http.server
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from rackserve import pki
from rackserve.programs import check_edge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what the test chose."""

    def do_GET(self) -> None:
        status, text = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def edge(folder: Path, health: tuple[int, str], known: tuple[int, str]) -> Iterator[tuple[int, int]]:
    pki.new_authority(folder / "pki", "CA")
    pki.ensure_server(folder / "pki", "edge", ["edge"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pki/edge.crt", folder / "pki/edge.key")
    servers = []
    for answer in (health, known):
        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        server.answer = answer  # type: ignore[attr-defined]
        servers.append(server)
    servers[0].socket = context.wrap_socket(servers[0].socket, server_side=True)
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield servers[0].server_port, servers[1].server_port
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.mark.parametrize(
    ("health", "known", "code"),
    [
        ((200, "{}"), (200, "0123456789abcdef\n"), 0),
        ((503, "{}"), (200, "0123456789abcdef\n"), 1),
        ((200, "{}"), (404, ""), 1),
        ((200, "{}"), (200, "<html>"), 1),
    ],
)
def test_an_edge_may_hold_the_address_when_both_are_answered(
    tmp_path: Path, health: tuple[int, str], known: tuple[int, str], code: int
) -> None:
    with edge(tmp_path, health, known) as (https, plain):
        assert check_edge.main([str(https), str(plain)]) == code


def test_an_edge_that_is_not_there_may_not(tmp_path: Path) -> None:
    with edge(tmp_path, (200, ""), (200, "")) as (https, plain):
        pass
    assert check_edge.main([str(https), str(plain)]) == 1
