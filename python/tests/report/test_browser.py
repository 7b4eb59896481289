"""The page in a real browser: it makes no request; a page that would is caught, and held back by its own policy."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from rackserve.report import render
from testing.report_pages import ill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root, and open only pages of our own
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # what Chromium asks for itself goes nowhere
)


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """Serve on loopback, and give the address and the paths that were asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


def requests_of(text: str, folder: Path) -> set[str]:
    """Open a page and return the hosts that the browser asked, by its own log of its network."""
    page, log = folder / "page.html", folder / "net.json"
    page.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [
            "chromium",
            *FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={log}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "<h1>" in done.stdout, "the browser did not read the page"
    urls = re.findall(r'"url":"((?:https?|wss?)://[^"]+)"', log.read_text(encoding="utf-8"))
    # What a browser asks its maker for has nothing to do with the page.
    return {urlsplit(url).netloc for url in urls if not urlsplit(url).netloc.endswith(("google.com", "googleapis.com"))}


def test_the_page_makes_no_request_and_a_control_is_caught(tmp_path: Path, asked: tuple[str, list[str]]) -> None:
    address, paths = asked
    text = render(ill(), dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    assert requests_of(text, tmp_path) == set()

    control = text.replace("<main>", f'<main><img src="{address}/control" alt=""><script src="{address}/js"></script>')
    assert requests_of(control, tmp_path) == set(), "the page's own policy lets requests through"
    assert paths == []

    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', control)
    assert policy
    assert requests_of(control.replace(policy[0], ""), tmp_path) == {urlsplit(address).netloc}
    assert set(paths) == {"/control", "/js"}
