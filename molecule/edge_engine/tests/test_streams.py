"""Streams of real engines outlive reloads and a drain, each to its end."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from testing.edge import in_flight, request

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from testinfra.host import Host

    from testing.fleet import Gpus

    Play = Callable[..., subprocess.CompletedProcess[str]]

STREAMS, TOKENS, RELOADS = 300, 96, 10
METRICS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/metrics').read().decode())"


@pytest.fixture(autouse=True)
def _behind(gpus: Gpus, real: None) -> None:  # noqa: ARG001 - they run
    """Have the engines yield to the play: in the lab both are on one machine's cores."""
    gpus.run("renice -n 10 -u vllm")


def streams() -> list[dict[str, Any]]:
    """Describe streamed completions."""
    body = {
        "model": "smollm2",
        "prompt": "a",
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return [request("POST", "/v1/completions", body, key="rsk-many") for _ in range(STREAMS)]


def told(host: Host, series: str) -> int:
    """Return a number that the edge tells."""
    lines = host.check_output(f'python3 -c "{METRICS}"').splitlines()
    (line,) = (line for line in lines if line.startswith(f"rackserve_edge_{series} "))
    return int(float(line.rsplit(" ", 1)[1]))


def open_streams(host: Host) -> int:
    """Return how many requests are open."""
    return told(host, 'open_requests{client="many"}')


def wait_for_all(host: Host) -> None:
    """Wait until all streams are open."""
    until = time.monotonic() + 120
    while open_streams(host) < STREAMS:
        assert time.monotonic() < until, f"{open_streams(host)} streams are open"
        time.sleep(0.5)


def is_whole(answer: dict[str, Any]) -> bool:
    """Return whether an answer is a stream whose every event can be read, with all its tokens and its end."""
    if "broken" in answer or answer["status"] != 200:
        return False
    events = [line.removeprefix("data: ") for line in answer["text"].split("\n\n")]
    assert events[-2:] == ["[DONE]", ""]
    read = [json.loads(event) for event in events[:-2]]
    return read[-1]["usage"]["completion_tokens"] == TOKENS and not any("error" in event for event in read)


def test_the_way_that_debian_stops_nginx_breaks_them(host: Host) -> None:
    """The control."""
    with in_flight(host, streams()) as answers:
        wait_for_all(host)
        host.check_output("start-stop-daemon --quiet --stop --retry QUIT/2/TERM/5 --pidfile /run/nginx.pid")
    broken = STREAMS - sum(map(is_whole, answers))
    print(f"{broken} of {len(answers)} broken")
    assert broken > STREAMS // 2


def test_no_stream_breaks_by_ten_reloads_and_a_drain(host: Host, play: Play) -> None:
    drain = ("molecule/edge_engine/converge.yml", {"nginx_drain": ["gpu1"]}, "--limit=edge1", "--tags=nginx_rotate")
    try:
        with in_flight(host, streams()) as answers, ThreadPoolExecutor() as beside:
            wait_for_all(host)
            began, play_ends = time.monotonic(), beside.submit(play, *drain)
            for _ in range(RELOADS):
                host.check_output("systemctl reload nginx && sleep 1")
            reloaded = open_streams(host)
            while not told(host, 'drained{upstream="gpu1:smollm2"}') and not play_ends.done():
                time.sleep(0.5)
            drained = open_streams(host)
            played = play_ends.result()
            took = time.monotonic() - began
    finally:
        host.check_output("rm -f /var/lib/rackserve/edge/rotation.json")  # the next play takes it back
    whole, seconds = sum(map(is_whole, answers)), [answer["seconds"] for answer in answers]
    print(f"{reloaded} open after {RELOADS} reloads, {drained} when gpu1 was drained; the play took {took:.0f} s")
    print(f"{whole} of {len(answers)} whole, in {min(seconds):.0f} to {max(seconds):.0f} s")
    assert played.returncode == 0, played.stdout[-2000:]
    assert reloaded == STREAMS, "all were open during all reloads"
    assert drained > 0
    assert whole == len(answers) == STREAMS
