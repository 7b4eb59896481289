"""A real engine with `task: embed` has the paths that the edge offers for it, and is watched as every other."""

from __future__ import annotations

import json
import shlex
import time
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.vllm import known_paths

if TYPE_CHECKING:
    from testinfra.host import Host

BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": "Hello"},
    "/v1/score": {"text_1": "Hello", "text_2": ["Hello", "world"]},
    "/v1/rerank": {"query": "Hello", "documents": ["Hello", "world"]},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": {"prompt": "a"},
    "/v1/responses": {"input": "a"},
    "/v1/messages": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "a"}]},
}
ASK = """
import sys, urllib.error, urllib.request as u
r = u.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"})
try:
    a = u.urlopen(r, timeout=60)
except urllib.error.HTTPError as refused:
    a = refused
print(a.status, a.read().decode())
"""


def ask(host: Host, path: str) -> tuple[int, Any]:
    url = f"http://{host.check_output('hostname -I').split()[0]}:8000{path}"
    body = json.dumps({"model": "vectors", **BODIES[path]})
    told = host.check_output(f"python3 -c {shlex.quote(ASK)} {url} {shlex.quote(body)}")
    status, _, text = told.partition(" ")
    return int(status), json.loads(text)


@pytest.mark.parametrize("path", BODIES)
def test_it_answers_by_the_paths_of_its_task_and_by_no_other(host: Host, path: str) -> None:
    status, found = ask(host, path)
    assert (status == 200) is ("embed" in known_paths()[path].tasks), found


def test_vectors_scores_and_ranks_are_numbers(host: Host) -> None:
    vector = ask(host, "/v1/embeddings")[1]["data"][0]["embedding"]
    assert sum(number * number for number in vector) == pytest.approx(1, abs=0.05)
    same, other = (row["score"] for row in ask(host, "/v1/score")[1]["data"])
    assert same == pytest.approx(1, abs=0.05)
    assert same > other
    assert ask(host, "/v1/rerank")[1]["results"][0]["index"] == 0


def test_the_probe_finds_it_ready(host: Host) -> None:
    end = time.monotonic() + 30
    while (record := json.loads(host.check_output("cat /run/rackserve/probe/vectors.json")))["state"] != "ready":
        assert time.monotonic() < end, record
        time.sleep(2)


def test_the_counter_by_which_a_busy_engine_is_known_moves(host: Host) -> None:
    def count() -> float:
        url = f"http://{host.check_output('hostname -I').split()[0]}:8000/metrics"
        page = host.check_output(
            f"python3 -c \"import urllib.request as u; print(u.urlopen('{url}').read().decode())\""
        )
        lines = [line for line in page.splitlines() if line.startswith("vllm:iteration_tokens_total_count")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    before = count()
    ask(host, "/v1/embeddings")
    assert count() > before
