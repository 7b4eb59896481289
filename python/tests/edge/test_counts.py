"""What a client has open is counted right, whoever dies and whatever the host's clock does."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from testing.local_edge import ROLE, Answer, Edge, Engine, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OPEN = 'open_requests{client="roomy"}'
SEQUENCES = 'open_sequences{client="roomy"}'
STREAMS = 6
# A clock that the test sets: the file has seconds, which are added to the host's time.
CLOCK = """init_by_lua_block {{
        local now, seconds = ngx.now, ngx.time
        local function offset()
            local file = io.open("{file}")
            local found = tonumber(file:read("*a"))
            file:close()
            return found
        end
        ngx.now = function() return now() + offset() end
        ngx.time = function() return seconds() + offset() end
"""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """Return the edge's code, with looks at the counts that come sooner."""
    code = tmp_path / "code"
    shutil.copytree(ROLE / "files", code)
    text = (code / "counters.lua").read_text(encoding="utf-8")
    assert "LOOK_SECONDS = 5\n" in text
    (code / "counters.lua").write_text(text.replace("LOOK_SECONDS = 5\n", "LOOK_SECONDS = 0.5\n"), encoding="utf-8")
    return code


class Streams:
    """Streams that go on until they are told to end."""

    def __init__(self, edge: Edge, count: int) -> None:
        self.ended, self.edge = threading.Event(), edge
        self.whole: list[bool] = []
        edge.engines.answer = self._answer
        edge.engines.seen.clear()
        self.threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self.threads:
            thread.start()
        wait_for(lambda: len(edge.engines.seen) == count)

    def _answer(self, engine: Engine, _: bytes) -> None:
        engine.send_response(200)
        engine.send_header("Content-Type", "text/event-stream")
        engine.end_headers()
        engine.close_connection = True
        engine.wfile.write(b"data: a\n\n")
        self.ended.wait(60)
        engine.wfile.write(b"data: [DONE]\n\n")

    def _ask(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.whole.append("[DONE]" in self.edge.complete(prompt="a", n=2).text)

    def end(self) -> int:
        """Have them end; returns how many were whole."""
        self.ended.set()
        for thread in self.threads:
            thread.join(30)
        return sum(self.whole)


def kill(workers: set[int]) -> None:
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):  # it had nothing open, and has ended
            os.kill(pid, signal.SIGKILL)


def test_a_reload_loses_no_count(run: Callable[..., Any], quick: Path) -> None:
    with run(code=quick) as found:
        streams = Streams(found, STREAMS)
        found.reload()
        time.sleep(2)  # some looks
        assert (found.series()[OPEN], found.series()[SEQUENCES]) == (STREAMS, 2 * STREAMS)
        assert streams.end() == STREAMS
        wait_for(lambda: found.series()[OPEN] == found.series()[SEQUENCES] == 0, 5)


@pytest.mark.parametrize("reloads", [0, 1, 2])
def test_what_a_killed_worker_had_open_is_given_back(run: Callable[..., Any], quick: Path, reloads: int) -> None:
    with run(code=quick) as found:
        streams = Streams(found, STREAMS)
        old = found.workers()
        for _ in range(reloads):
            found.reload()
        assert found.series()[OPEN] == STREAMS
        kill(old)
        wait_for(lambda: found.series()[OPEN] == found.series()[SEQUENCES] == 0, 10)
        streams.end()
        time.sleep(1.5)
        assert (found.series()[OPEN], found.series()[SEQUENCES]) == (0, 0), "and not twice"


def test_a_frozen_worker_keeps_what_it_has_open(run: Callable[..., Any], quick: Path) -> None:
    with run(code=quick) as found:
        streams = Streams(found, STREAMS)
        old = found.reload()
        for pid in old:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
        assert found.series()[OPEN] == STREAMS
        for pid in old:
            os.kill(pid, signal.SIGCONT)
        assert streams.end() == STREAMS
        wait_for(lambda: found.series()[OPEN] == 0, 5)


def test_a_client_whose_worker_was_killed_has_all_its_requests_again(run: Callable[..., Any], quick: Path) -> None:
    with run(code=quick) as found:
        streams = Streams(found, 32)
        assert found.complete(prompt="a").status == 429
        kill(found.reload())
        wait_for(lambda: found.series()[SEQUENCES] == 0, 10)
        streams.end()
        assert found.complete(prompt="a").status == 200


@pytest.mark.parametrize("step", [-3600, 3600, -30, 30])
def test_a_step_of_the_clock_shuts_no_client_out(run: Callable[..., Any], tmp_path: Path, step: int) -> None:
    """`tight` may send 60 a minute, and 5 at once."""
    offset = tmp_path / "offset"

    def clock(seconds: int) -> None:
        (tmp_path / "new").write_text(str(seconds), encoding="utf-8")
        (tmp_path / "new").rename(offset)

    clock(0)
    with run(change=lambda text: text.replace("init_by_lua_block {\n", CLOCK.format(file=offset))) as found:

        def ask() -> Answer:
            answer: Answer = found.ask("/v1/completions", {"model": "small", "prompt": "a"}, key="rsk-tight")
            return answer

        assert {ask().status for _ in range(4)} == {200}
        clock(step)
        assert {ask().status for _ in range(12)} == {200, 429}, "the limit holds"
        refused = ask()
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        clock(0)  # and right again
        refused = ask()
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        time.sleep(2.2)
        assert [ask().status for _ in range(2)] == [200, 200]


def test_a_rate_is_kept_to(nginx: Edge) -> None:
    def flood() -> list[int]:
        body = {"model": "small", "prompt": "a"}
        return [nginx.ask("/v1/completions", body, key="rsk-tight").status for _ in range(12)]

    time.sleep(5)
    began = time.monotonic()
    taken = flood().count(200)
    assert 5 <= taken <= 5 + time.monotonic() - began + 1
