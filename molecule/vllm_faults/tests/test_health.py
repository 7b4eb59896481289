"""An engine that hangs leaves the edge and serves again; a saturated one is left alone; wrong weights stay outside.

`VLLM_FAULTS_INSTANCE` names another instance than the tiny one, `VLLM_FAULTS_MINUTES` another time of saturation,
`VLLM_FAULTS_TURNS` how often each kind of hang is tried.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from testing.generations import INSTANCES, engine_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testinfra.host import Host

NAME = os.environ.get("VLLM_FAULTS_INSTANCE", "tiny")
MINUTES = float(os.environ.get("VLLM_FAULTS_MINUTES", "10"))
UNIT, PROXY = engine_unit(NAME), f"vllm-proxy@{NAME}.socket"
TURNS = int(os.environ.get("VLLM_FAULTS_TURNS", "3"))
OUT_WITHIN_S = 30
BACK_WITHIN_S = 180
READY_WITHIN_S = 240
LOOKS_S = 60
WEIGHTS = ("/var/cache/huggingface/**/models--", "/snapshots/*/model.safetensors")

# Runs on the host: how many requests at once, for how many seconds, how many tokens each; it prints what came of them.
LOAD = """
import collections, http.client, json, sys, threading, time
address, model, count, seconds, tokens = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
end, seen = time.monotonic() + seconds, collections.Counter()
def ask(number):
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(address, timeout=600)
        body = dict(model=model, prompt=str(number), max_tokens=int(tokens), ignore_eos=True)
        try:
            connection.request('POST', '/v1/completions', json.dumps(body), {'Content-Type': 'application/json'})
            answer = connection.getresponse()
            made = json.loads(answer.read())['usage']['completion_tokens'] if answer.status == 200 else -1
            seen['good' if made == int(tokens) else f'HTTP {answer.status}'] += 1
        except Exception as failed:
            seen[type(failed).__name__] += 1
            time.sleep(1)
threads = [threading.Thread(target=ask, args=(n,)) for n in range(int(count))]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(json.dumps(seen))
"""
FLIP = """
import glob, sys
(path,) = {__import__('os').path.realpath(p) for p in glob.glob(sys.argv[1], recursive=True)}
with open(path, 'r+b') as weights:
    middle = weights.seek(0, 2) // 2
    weights.seek(middle)
    flipped = bytes(byte ^ 255 for byte in weights.read(32))
    weights.seek(middle)
    weights.write(flipped)
print(path)
"""

ASK = (
    "import http.client, json, sys;"
    ' c = http.client.HTTPConnection(sys.argv[1], timeout=5); b = dict(model=sys.argv[2], prompt="a", max_tokens=1);'
    ' c.request("POST", "/v1/completions", json.dumps(b), dict([("Content-Type", "application/json")]));'
    ' sys.exit(json.load(c.getresponse())["usage"]["completion_tokens"] != 1)'
)


def show(host: Host, key: str, unit: str = UNIT) -> str:
    return host.check_output(f"systemctl show --property={key} --value {unit}")


def record(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.check_output(f"cat /run/rackserve/probe/{NAME}.json"))
    return found


def settings(host: Host) -> dict[str, str]:
    lines = host.check_output(f"cat {INSTANCES}/{NAME}/current/engine.yaml").splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def address(host: Host) -> str:
    return show(host, "Listen", PROXY).split()[0]


def model(host: Host) -> str:
    return str(json.loads(host.check_output(f"cat {INSTANCES}/{NAME}/current/probe.json"))["model"])


def is_open(host: Host) -> bool:
    return show(host, "ActiveState", PROXY) == "active"


def tokens(host: Host) -> bool:
    """Return whether a client gets tokens, by the address that it uses."""
    ask = host.run(f"python3 -c '{ASK}' {address(host)} {model(host)}")
    return ask.rc == 0


def wait_for(condition: Callable[[], bool], limit_s: float) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, f"not within {limit_s} s"
        time.sleep(0.5)
    return time.monotonic() - began


def put(host: Host, name: str, text: str) -> str:
    """Write a program to the host and return its path."""
    path = f"/tmp/{name}.py"  # noqa: S108 - on a lab's host
    host.check_output(f"cat >{path} <<'END'\n{text}\nEND")
    return path


def engine_pid(host: Host) -> str:
    processes = f"/sys/fs/cgroup{show(host, 'ControlGroup')}/cgroup.procs"
    return host.check_output(f"grep -l EngineCor $(sed 's,.*,/proc/&/comm,' {processes}) | cut -d/ -f3").split()[0]


@pytest.fixture
def ready(host: Host) -> Iterator[None]:
    """Have the instance ready before the test, and after it, whatever it did."""
    wait_for(lambda: record(host)["state"] == "ready" and tokens(host), READY_WITHIN_S)
    yield
    wait_for(lambda: record(host)["state"] == "ready" and tokens(host), READY_WITHIN_S)


def note(capsys: pytest.CaptureFixture[str], **figures: object) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n[measured] {json.dumps(figures)}\n")


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "mid-stream"])
@pytest.mark.parametrize("frozen", ["engine", "api server"])
@pytest.mark.parametrize("turn", range(TURNS))
def test_what_is_frozen_leaves_the_edge_and_serves_again(
    host: Host,
    capsys: pytest.CaptureFixture[str],
    turn: int,
    frozen: str,
    *,
    busy: bool,
) -> None:
    restarts, invocation = record(host)["decisions"].get("restart", 0), show(host, "InvocationID")
    if busy:
        load = put(host, "load", LOAD)
        host.check_output(f"nohup python3 {load} {address(host)} {model(host)} 2 20 200 >/dev/null 2>&1 & sleep 3")
    pid = engine_pid(host) if frozen == "engine" else show(host, "MainPID")
    host.check_output(f"kill -STOP {pid}")
    out = wait_for(lambda: not is_open(host), OUT_WITHIN_S)
    assert record(host)["state"] == "hung"
    back = out + wait_for(lambda: show(host, "InvocationID") != invocation and tokens(host), BACK_WITHIN_S - out)
    note(capsys, turn=turn, frozen=frozen, busy=busy, out_s=round(out, 1), back_s=round(back, 1))
    assert record(host)["decisions"]["restart"] == restarts + 1


@pytest.mark.usefixtures("ready")
def test_an_engine_that_thaws_is_let_in_again_without_a_restart(host: Host) -> None:
    invocation, pid = show(host, "InvocationID"), engine_pid(host)
    host.check_output(f"kill -STOP {pid}")
    wait_for(lambda: not is_open(host), OUT_WITHIN_S)
    host.check_output(f"kill -CONT {pid}")
    wait_for(lambda: is_open(host) and tokens(host), OUT_WITHIN_S)
    assert show(host, "InvocationID") == invocation


@pytest.mark.usefixtures("ready")
def test_a_saturated_engine_is_left_alone(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    before, invocation = record(host)["decisions"], show(host, "InvocationID")
    count, length = 4 * int(settings(host)["max-num-seqs"]), int(settings(host)["max-model-len"]) - 40
    load = put(host, "load", LOAD)
    done = f"/tmp/{NAME}.load"  # noqa: S108 - on a lab's host
    command = f"python3 {load} {address(host)} {model(host)} {count} {MINUTES * 60} {length}"
    host.check_output(f"rm -f {done}; nohup sh -c '{command} >{done}.new && mv {done}.new {done}' >/dev/null 2>&1 &")
    states: dict[str, int] = {}
    last = 0.0
    while not host.file(done).exists:
        seen = record(host)
        if seen["checked"] != last:
            last, states[seen["state"]] = seen["checked"], states.get(seen["state"], 0) + 1
        time.sleep(2)
    answers = json.loads(host.file(done).content_string)
    after = record(host)["decisions"]
    note(capsys, minutes=MINUTES, at_once=count, tokens_each=length, looks=states, answers=answers, decisions=after)
    assert set(answers) == {"good"}
    assert {key: after.get(key, 0) for key in ("close", "restart")} == {
        key: before.get(key, 0) for key in ("close", "restart")
    }
    assert set(states) <= {"ready", "busy"}
    assert show(host, "InvocationID") == invocation


@pytest.fixture
def flipped(host: Host) -> Iterator[None]:
    """Flip 32 bytes of the weights, and flip them back."""
    flip = f"python3 {put(host, 'flip', FLIP)} '{settings(host)['model'].replace('/', '--').join(WEIGHTS)}'"
    host.check_output(flip)
    host.check_output(f"systemctl restart {UNIT}")
    yield
    host.check_output(flip)
    host.check_output(f"systemctl restart {UNIT}")


@pytest.mark.usefixtures("ready", "flipped")
def test_other_weights_stay_outside_and_are_not_restarted(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_open(host), "the unit itself must not open the socket proxy"
    waited = wait_for(lambda: record(host)["state"] == "corrupt", LOOKS_S)
    invocation = show(host, "InvocationID")
    time.sleep(LOOKS_S)
    assert (record(host)["state"], is_open(host)) == ("corrupt", False)
    assert show(host, "InvocationID") == invocation
    note(capsys, corrupt_known_after_s=round(waited, 1))


@pytest.mark.usefixtures("ready")
def test_a_drained_instance_stays_closed(host: Host) -> None:
    mark = f"/var/lib/rackserve/drained/{NAME}"
    host.check_output(f"mkdir -p /var/lib/rackserve/drained && touch {mark} && systemctl stop {PROXY}")
    try:
        host.check_output(f"systemctl restart {UNIT}")
        time.sleep(LOOKS_S / 2)
        assert (record(host)["state"], is_open(host)) == ("ready", False)
    finally:
        host.check_output(f"rm {mark} && systemctl start {PROXY}")
