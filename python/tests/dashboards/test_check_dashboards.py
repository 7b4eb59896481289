"""The tool names the panels for which a Prometheus has nothing, and says it by its exit code."""

from __future__ import annotations

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools/check_dashboards.py"
    spec = importlib.util.spec_from_file_location("check_dashboards", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Prometheus(BaseHTTPRequestHandler):
    """Has one series with a number for every question that does not have `lacks` in it."""

    protocol_version = "HTTP/1.1"
    lacks: ClassVar[str] = ""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)["query"][0]
        result = [] if self.lacks and self.lacks in query else [{"metric": {}, "value": [0, "1"]}]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def checked(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, list[str]], tuple[int, list[str]]]:
    """Return a function that checks two dashboards against a Prometheus without some series: code, printed lines."""
    for name in ("gpu", "edge"):
        (tmp_path / f"{name}.json").symlink_to(tool.FOLDER / f"{name}.json")

    def check(lacks: str, options: list[str]) -> tuple[int, list[str]]:
        handler = type("Lacking", (Prometheus,), {"lacks": lacks})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            code = tool.main([f"http://127.0.0.1:{server.server_port}", "--folder", str(tmp_path), *options])
            server.shutdown()
        return code, capsys.readouterr().out.splitlines()

    return check


@pytest.mark.parametrize(
    ("lacks", "options", "verdict"),
    [
        ("", [], (0, "ok")),
        ("rackserve_gpus_seen", ["--all"], (1, "NOTHING")),
        ("rackserve_gpu_power_watts", [], (0, "needs a GPU")),
        ("rackserve_gpu_power_watts", ["--all"], (1, "NOTHING")),
        ("rackserve:limit", [], (1, "NOTHING")),
    ],
    ids=["all is there", "a panel is empty", "without a GPU", "a GPU is missed", "a limit is missed"],
)
def test_a_panel_without_data_fails_unless_it_needs_what_is_not_there(
    checked: Callable[[str, list[str]], tuple[int, list[str]]],
    lacks: str,
    options: list[str],
    verdict: tuple[int, str],
) -> None:
    code, printed = checked(lacks, options)
    empty = [line for line in printed if line.lstrip().startswith("0 ")]
    assert (code, bool(empty)) == (verdict[0], bool(lacks))
    assert all(verdict[1] in line for line in empty or printed)


def test_no_prometheus_is_no_verdict(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["http://127.0.0.1:9"]) == 2
    assert "http://127.0.0.1:9 does not answer as Prometheus does" in capsys.readouterr().err
