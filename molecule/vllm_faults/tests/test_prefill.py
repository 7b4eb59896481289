"""A prefill of more than a minute, during which the engine generates nothing, is left alone and stays in rotation.

`VLLM_FAULTS_PREFILLS` sets how often.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from testing.generations import engine_unit

if TYPE_CHECKING:
    from testinfra.host import Host

NAME = "long"
UNIT = engine_unit(NAME)
TIMES = int(os.environ.get("VLLM_FAULTS_PREFILLS", "10"))
MINUTE_S = 60
READY_WITHIN_S = 240

# Runs on the host: one token after each of some prompts of 8,100 tokens, all at once; it prints status and seconds.
PREFILL = """
import http.client, json, sys, threading, time
address, number, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
began, seen = time.monotonic(), []
def ask(part):
    body = dict(model='long', prompt=[100 + int(number) * 50 + part] + [5] * 8099, max_tokens=1)
    connection = http.client.HTTPConnection(address, timeout=900)
    connection.request('POST', '/v1/completions', json.dumps(body), {'Content-Type': 'application/json'})
    answer = connection.getresponse()
    answer.read()
    seen.append(answer.status)
threads = [threading.Thread(target=ask, args=(part,)) for part in range(count)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(json.dumps(dict(statuses=seen, seconds=time.monotonic() - began)))
"""


def record(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.check_output(f"cat /run/rackserve/probe/{NAME}.json"))
    return found


def show(host: Host, key: str, unit: str) -> str:
    return host.check_output(f"systemctl show --property={key} --value {unit}")


def prefill(host: Host, number: int, count: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Return what the prompts gave, and how many probe runs meanwhile found which state."""
    address = show(host, "Listen", f"vllm-proxy@{NAME}.socket").split()[0]
    done = f"/tmp/{NAME}.prefill"  # noqa: S108 - on a lab's host
    host.check_output(f"cat >{done}.py <<'END'\n{PREFILL}\nEND")
    command = f"python3 {done}.py {address} {number} {count}"
    host.check_output(f"rm -f {done}; nohup sh -c '{command} >{done}.new && mv {done}.new {done}' >/dev/null 2>&1 &")
    states: dict[str, int] = {}
    last = record(host)["checked"]
    while not host.file(done).exists:
        seen = record(host)
        if seen["checked"] != last:
            last, states[seen["state"]] = seen["checked"], states.get(seen["state"], 0) + 1
        time.sleep(1)
    found: dict[str, Any] = json.loads(host.file(done).content_string)
    return found, states


@pytest.fixture(scope="module")
def count(host: Host) -> int:
    """Return how many prompts together take this host more than a minute."""
    end = time.monotonic() + READY_WITHIN_S
    while record(host)["state"] != "ready":
        assert time.monotonic() < end, record(host)
        time.sleep(2)
    return math.ceil(1.05 * MINUTE_S / prefill(host, 0, 1)[0]["seconds"])


@pytest.mark.parametrize("number", range(1, TIMES + 1))
def test_a_prefill_of_more_than_a_minute_survives(
    host: Host, capsys: pytest.CaptureFixture[str], count: int, number: int
) -> None:
    before, invocation = record(host)["decisions"], show(host, "InvocationID", UNIT)
    found, states = prefill(host, number, count)
    after = record(host)["decisions"]
    with capsys.disabled():
        sys.stdout.write(f"\n[measured] {json.dumps({'prompts': count, **found, 'looks': states})}\n")
    assert found["statuses"] == [200] * count
    assert found["seconds"] > MINUTE_S
    assert "busy" in states
    assert set(states) <= {"ready", "busy"}
    assert [after.get(key, 0) for key in ("close", "restart")] == [before.get(key, 0) for key in ("close", "restart")]
    assert show(host, "InvocationID", UNIT) == invocation
    assert show(host, "ActiveState", f"vllm-proxy@{NAME}.socket") == "active"
