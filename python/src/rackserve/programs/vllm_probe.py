#!/usr/bin/env python3
"""Probe an instance of vLLM by a generated token, and act on its state.

This one file needs Python 3.9 and its standard library; it runs on the hosts. `/health` is not used: a hung
engine still answers 200.

    vllm_probe.py wait NAME     ExecStartPost of vllm@NAME: exit 0 after the first token, 1 with the reason
    vllm_probe.py check NAME    every ten seconds, as root: decide the state, close or open the proxy, restart

It reads /etc/vllm/instances/NAME.probe.json: `engine` (a socket's path or host:port) and `model`, and the other
fields of `Settings`. docs/reference/health.md has a diagram of the states, and the limits of the probe.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any, NamedTuple

SETTINGS = "/etc/vllm/instances/{}.probe.json"
RECORD = "/var/lib/rackserve/probe/{}.json"
GOLDEN = "/var/lib/rackserve/probe/{}.golden.json"
DRAINED = "/var/lib/rackserve/drained/{}"
CORRUPT = "/run/vllm-{}/corrupt"
METRICS = "/var/lib/prometheus/node-exporter"
PRESSURE = "/sys/fs/cgroup{}/cpu.pressure"
STATES = ("starting", "ready", "busy", "hung", "corrupt", "stopped", "failed")
GOLDEN_PROMPT = (
    "Sphinx of black quartz, judge my vow. On 14 July 1789, 3 of 7 ships left Lisbon; E = mc^2, naïve café,\n"
    'def f(x): return x ** 2 # "ok"\nEinmal ist keinmal. 你好 世界. The capital of France is'
)
# Lengths of the prompts whose next token is requested.
_ENDS = (20, 60, 100, 140, len(GOLDEN_PROMPT))
_OVERLOADED = (408, 429, 503)
# Percent of the last ten seconds: an engine that waited for a CPU that long is starved, not hung; a restart would wait
# as well. Spinning threads wait too, so after this many times `restart_after` probe runs it counts as hung.
_STARVED = 50.0
_STARVED_FACTOR = 10
# The request by task, and the place of the result in the answer.
_REQUESTS: dict[str, tuple[str, dict[str, Any], tuple[Any, ...]]] = {
    "generate": (
        "/v1/completions",
        {"prompt": "Hello", "max_tokens": 1, "temperature": 0.0},
        ("usage", "completion_tokens"),
    ),
    "embed": ("/v1/embeddings", {"input": "Hello"}, ("data", 0, "embedding", 0)),
    "score": ("/v1/score", {"text_1": "Hello", "text_2": "Hello"}, ("data", 0, "score")),
}


class Settings(NamedTuple):
    """Settings of one instance's probe. `golden_identity` names model, release, dtype and hardware; empty: none."""

    engine: str
    model: str
    task: str = "generate"
    probe_timeout_s: float = 10.0
    suspect_timeout_s: float = 5.0
    metrics_timeout_s: float = 2.0
    start_budget_s: float = 600.0
    restart_after: int = 3
    counters: tuple[str, ...] = ("vllm:iteration_tokens_total_count", "vllm:generation_tokens_total")
    load: tuple[str, ...] = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    golden_identity: str = ""
    adapters: bool = False
    golden_every_s: float = 600.0
    golden_tolerance: float = 0.3


class Observation(NamedTuple):
    """The result of one probe run. `golden` is None where it was not compared; `waited`: percent, for a CPU."""

    unit: str
    invocation: str
    started: float
    token: bool = False
    listener: bool = False
    advanced: bool = False
    counter: float | None = None
    golden: bool | None = None
    drained: bool = False
    detail: str = ""
    waited: float = 0.0


class Record(NamedTuple):
    """State kept between probe runs. Times are seconds since the epoch, 0 for never; `closed`: the proxy, by the probe.

    `starved` counts the probe runs, since the engine last made progress, that found it waiting for a CPU.
    """

    state: str = "stopped"
    since: float = 0.0
    checked: float = 0.0
    detail: str = ""
    invocation: str = ""
    last_token: float = 0.0
    golden_compared: float = 0.0
    frozen: int = 0
    counter: float | None = None
    closed: bool = False
    restarted: float = 0.0
    seconds: float = 0.0
    starved: int = 0
    decisions: dict[str, int] = {}  # noqa: RUF012 - never changed in place


def decide(last: Record, seen: Observation, settings: Settings, now: float) -> tuple[Record, list[str]]:
    """Return the next record, and the actions: `close` or `open` the proxy, `restart` the engine.

    The proxy of an engine without progress is closed at once, and the engine is restarted at the third probe run
    without progress. A slow engine is left alone, and so, for a limited time, is one that waits for a CPU. An engine
    whose golden answer changed is closed and kept for its operator. After a restart there is no other one before a
    token or the end of the start's budget.
    """
    fresh = last.invocation != seen.invocation
    record = last._replace(invocation=seen.invocation, checked=now, detail=seen.detail, counter=seen.counter)
    if fresh:  # a start of the unit opens the proxy itself
        record = record._replace(frozen=0, starved=0, closed=False)
    if None not in {last.counter, seen.counter} and last.counter != seen.counter:
        record = record._replace(frozen=0, starved=0)
    state, counted, actions = _next_state(
        record, seen, settings, now, stays_corrupt=last.state == "corrupt" and not fresh
    )
    if state in {"hung", "corrupt"} and not record.closed:
        actions.insert(0, "close")
    if state in {"ready", "busy"} and record.closed and not seen.drained:
        actions.append("open")
    if "restart" in actions:
        record = record._replace(restarted=now)
    tally = dict(record.decisions)
    for decision in [*actions, *counted]:
        tally[decision] = tally.get(decision, 0) + 1
    return record._replace(
        state=state,
        since=last.since if state == last.state else now,
        last_token=now if seen.token else last.last_token,
        golden_compared=last.golden_compared if seen.golden is None else now,
        frozen=0 if state != "hung" or "restart" in actions else record.frozen + 1,
        starved=0 if seen.token or seen.advanced else record.starved + (state == "busy"),
        closed=(record.closed or "close" in actions) and "open" not in actions,
        decisions=tally,
    ), actions


def _next_state(
    record: Record, seen: Observation, settings: Settings, now: float, *, stays_corrupt: bool
) -> tuple[str, list[str], list[str]]:
    """Return the state, the decisions to count besides, and the actions on the engine."""
    starting = record.last_token < seen.started and 0 <= now - seen.started < settings.start_budget_s
    restart_allowed = record.restarted < record.last_token or not 0 <= now - record.restarted < settings.start_budget_s
    decision: list[str] = []
    actions: list[str] = []
    if seen.unit != "active":
        state = {"failed": "failed", "activating": "starting", "reloading": "starting"}.get(seen.unit, "stopped")
    elif seen.golden is False or stays_corrupt:
        state = "corrupt"
    elif seen.token:
        state = "ready"
    elif not seen.listener and starting:
        state = "starting"
    elif seen.advanced or (seen.waited >= _STARVED and record.starved < _STARVED_FACTOR * settings.restart_after):
        state, decision = "busy", ["skip_busy"]
    elif record.frozen + 1 < settings.restart_after:
        state = "hung"
    else:
        state, decision, actions = (
            ("hung", [], ["restart"]) if restart_allowed else ("hung", ["restart_suppressed"], [])
        )
    return state, decision, actions


def same_answer(wanted: dict[str, Any], found: dict[str, Any], tolerance: float) -> bool:
    """Return whether two answers to the golden prompt come from the same weights.

    The log-probabilities of the prompt's own tokens decide, or of what may follow it: each is computed from the same
    input, so that a difference does not grow from token to token as it does in generated text.
    """
    if wanted["tokens"] != found["tokens"] or len(wanted["logprobs"]) != len(found["logprobs"]):
        return False
    return all(abs(one - other) <= tolerance for one, other in zip(wanted["logprobs"], found["logprobs"]))


def counted(page: str, names: tuple[str, ...]) -> float | None:
    """Return the sum of the series of some names on a page of metrics, or None where there is none."""
    rows = [line.rsplit(" ", 1) for line in page.splitlines() if line.split("{")[0].split(" ")[0] in names]
    return sum(float(value) for _, value in rows) if rows else None


def exposition(name: str, model: str, record: Record) -> str:
    """Return the metrics of one instance for the node exporter.

    The label is `vllm_instance` as in the scrape of the engines: Prometheus keeps `instance` for the target.
    """
    labels = f'vllm_instance="{name}",model="{model}"'
    lines = [f'rackserve_instance_state{{{labels},state="{s}"}} {int(s == record.state)}' for s in STATES]
    lines += [
        f"rackserve_instance_{key}{{{labels}}} {value}"
        for key, value in (
            ("state_since_seconds", record.since),
            ("last_token_time_seconds", record.last_token),
            ("probe_time_seconds", record.checked),
            ("probe_duration_seconds", record.seconds),
            ("probe_restarts_total", record.decisions.get("restart", 0)),
        )
    ]
    lines += [
        f'rackserve_instance_probe_decisions_total{{{labels},decision="{key}"}} {record.decisions.get(key, 0)}'
        for key in ("close", "open", "restart", "restart_suppressed", "skip_busy")
    ]
    return "\n".join(lines) + "\n"


class _Connection(http.client.HTTPConnection):
    """HTTP to a socket's path or to host:port."""

    def __init__(self, engine: str, timeout: float) -> None:
        super().__init__("localhost" if engine.startswith("/") else engine, timeout=timeout)
        self._path = engine if engine.startswith("/") else ""

    def connect(self) -> None:
        if not self._path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(settings: Settings, path: str, body: dict[str, Any] | None, timeout: float) -> tuple[int, str]:
    """Return the engine's status code and answer.

    Raises:
        OSError: when no answer came in time, or the connection was refused.
        http.client.HTTPException: when the answer is not HTTP.
    """
    with contextlib.closing(_Connection(settings.engine, timeout)) as connection:
        data = json.dumps({"model": settings.model, **body}) if body else None
        connection.request("POST" if body else "GET", path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


def ask_token(settings: Settings, timeout: float) -> tuple[bool, int, str]:
    """Request one token; return whether it came, the status (0: none, -1: connection refused), and a description.

    A pooling model is asked for one vector or one score.
    """
    path, body, place = _REQUESTS[settings.task]
    try:
        status, text = ask(settings, path, body, timeout)
        token = status == http.HTTPStatus.OK and _holds_number(json.loads(text), place)
    except (ConnectionRefusedError, FileNotFoundError):
        return False, -1, f"nothing listens on {settings.engine}"
    except (OSError, http.client.HTTPException, ValueError) as failed:
        return False, 0, f"no token in {timeout:.0f} s ({failed})"
    return token, status, "a token came" if token else f"HTTP {status}: {' '.join(text.split())[:200]}"


def _holds_number(found: Any, place: tuple[Any, ...]) -> bool:  # noqa: ANN401 - what JSON holds
    """Return whether an answer has a number in a place; zero generated tokens do not count."""
    try:
        for step in place:
            found = found[step]
    except (KeyError, IndexError, TypeError):
        return False
    return found == 1 if place[-1] == "completion_tokens" else isinstance(found, (int, float))


def read_page(settings: Settings) -> str:
    """Return the engine's page of metrics, empty where it does not answer."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(settings, "/metrics", None, settings.metrics_timeout_s)[1]
    return ""


def ask_golden(settings: Settings, timeout: float) -> dict[str, Any] | None:
    """Return the tokens of the golden prompt and their log-probabilities, or None where there was no answer in time.

    An engine that rejects the request returns neither, which differs from the kept answer; it cannot serialise NaN, for
    one. With adapters, log-probabilities of the prompt crash the engine when another request runs at the same time
    (vLLM's issues 16668 and 29955), so the likeliest next tokens after parts of it are requested, and token names are
    left out, since two may be equally likely.
    """
    body = {"prompt": GOLDEN_PROMPT, "max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}
    if settings.adapters:
        body = {**body, "prompt": [GOLDEN_PROMPT[:end] for end in _ENDS], "logprobs": 5, "echo": False}
    try:
        status, text = ask(settings, "/v1/completions", body, timeout)
        if status in _OVERLOADED:
            return None
        choices = [choice["logprobs"] for choice in json.loads(text)["choices"]] if status == http.HTTPStatus.OK else []
        if settings.adapters:
            likeliest = [sorted(found["top_logprobs"][0].values(), reverse=True) for found in choices]
            return {"tokens": [], "logprobs": [round(value, 4) for values in likeliest for value in values]}
        found = choices[0] if choices else {}
    except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError):
        return None
    logprobs = [0.0 if value is None else round(value, 4) for value in found.get("token_logprobs", [])]
    return {"tokens": found.get("tokens", [])[:-1], "logprobs": logprobs[:-1]}


def compare_golden(settings: Settings, kept: dict[str, Any], timeout: float) -> bool | None:
    """Return whether the engine answers as before; a difference counts when it is repeated."""
    for _ in range(2):
        found = ask_golden(settings, timeout)
        if found is None:
            return None
        if same_answer(kept, found, settings.golden_tolerance):
            return True
    return False


def read_json(path: str) -> dict[str, Any]:
    """Return an object from a file, empty where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as source:
        found = json.load(source)
        return found if isinstance(found, dict) else {}
    return {}


def write(path: str, text: str) -> None:
    """Replace a file by one atomic rename."""
    draft = f"{path}.new"
    with open(draft, "w", encoding="utf-8") as target:
        target.write(text)
    os.replace(draft, path)


def read_settings(name: str) -> Settings:
    """Return the probe's settings of an instance.

    Raises:
        SystemExit: when its file cannot be used.
    """
    path = SETTINGS.format(name)
    try:
        with open(path, encoding="utf-8") as source:
            raw: dict[str, Any] = json.load(source)
        raw.update({key: tuple(raw[key]) for key in ("counters", "load") if key in raw})
        return Settings(**raw)
    except (OSError, ValueError, TypeError, AttributeError) as bad:
        print(f"{path} cannot be used ({bad}); run the role vllm again", file=sys.stderr)
        raise SystemExit(2) from bad


def read_waited(group: str) -> float:
    """Return how much of the last ten seconds a control group waited for a CPU, in percent; 0 when unknown."""
    if group:  # without one the file would be that of the whole host
        with contextlib.suppress(OSError, ValueError), open(PRESSURE.format(group), encoding="utf-8") as source:
            return float(source.readline().partition("avg10=")[2].split(" ")[0])
    return 0.0


def systemctl(*args: str) -> str:
    """Run systemctl and return its output; print a failure to standard error."""
    done = subprocess.run(["systemctl", *args], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        print(f"systemctl {' '.join(args)}: {done.stderr.strip()}", file=sys.stderr)
    return done.stdout


def observe(name: str, settings: Settings, last: Record) -> Observation:
    """Probe an instance: its unit, a token, progress of its counters, and its golden answer."""
    keys = "ActiveState,InvocationID,ControlGroup,ExecMainStartTimestampMonotonic"
    shown = systemctl("show", f"vllm@{name}.service", f"--property={keys}").splitlines()
    unit = dict(line.split("=", 1) for line in shown if "=" in line)
    age = time.clock_gettime(time.CLOCK_MONOTONIC) - int(unit.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
    started = time.time() - age
    state, invocation = unit.get("ActiveState", "unknown"), unit.get("InvocationID", "")
    drained = os.path.exists(DRAINED.format(name))
    if state != "active":
        return Observation(state, invocation, started, drained=drained, detail=f"the unit is {state}")
    before = read_page(settings)
    # The first failing probe run waits long; later ones need less time to see that there is no progress.
    token, status, detail = ask_token(settings, settings.suspect_timeout_s if last.frozen else settings.probe_timeout_s)
    if not token:
        first, second = (
            counted(before, settings.counters),
            counted(read_page(settings) if before else "", settings.counters),
        )
        advanced = None not in {first, second} and first != second
        # Only a missing answer can be due to a busy CPU; an error is an answer.
        waited = read_waited(unit.get("ControlGroup", "")) if status == 0 or status in _OVERLOADED else 0.0
        if waited >= _STARVED:
            detail += f"; it waits for a CPU {waited:.0f} % of the time"
        return Observation(
            state, invocation, started, False, status >= 0, advanced, second, None, drained, detail, waited
        )
    golden: bool | None = None
    fresh, due = last.golden_compared < started, time.time() - last.golden_compared >= settings.golden_every_s
    if os.path.exists(CORRUPT.format(name)):
        golden = False
    elif settings.golden_identity and (fresh or due) and not counted(before, settings.load):
        golden = compare_or_keep(name, settings)
    return Observation(state, invocation, started, True, True, True, None, golden, drained, detail)


def compare_or_keep(name: str, settings: Settings) -> bool | None:
    """Compare an engine's golden answer with the kept one; keep the first one when it is repeated."""
    kept = read_json(GOLDEN.format(name))
    if kept.get("identity") == settings.golden_identity:
        return compare_golden(settings, kept, settings.probe_timeout_s)
    first = ask_golden(settings, settings.probe_timeout_s)
    if not first or not first["logprobs"] or not compare_golden(settings, first, settings.probe_timeout_s):
        return None
    row = {"identity": settings.golden_identity, "kept": time.time(), **first}
    write(GOLDEN.format(name), json.dumps(row, ensure_ascii=False))
    return True


def check(name: str) -> int:
    """Probe an instance once, decide, record the decision, act and report."""
    settings, now = read_settings(name), time.time()
    kept = read_json(RECORD.format(name))
    last = Record(**{key: value for key, value in kept.items() if key in Record._fields})
    seen = observe(name, settings, last)
    record, actions = decide(last, seen, settings, time.time())
    record = record._replace(seconds=round(time.time() - now, 3))
    text = json.dumps({"instance": name, "model": settings.model, **record._asdict(), "actions": actions})
    write(RECORD.format(name), text + "\n")  # before acting: an interrupted check must not lose this
    proxy = [f"vllm-proxy@{name}.socket", f"vllm-proxy@{name}.service"]
    for action in actions:
        if action == "close":
            systemctl("stop", *proxy)
        elif action == "open":
            systemctl("start", proxy[0])
        else:  # a hung engine does not react to SIGTERM; its streams are lost already
            systemctl("kill", "--signal=SIGKILL", f"vllm@{name}.service")
            systemctl("restart", "--no-block", f"vllm@{name}.service")
    if os.path.isdir(METRICS):
        write(f"{METRICS}/rackserve_instance_{name}.prom", exposition(name, settings.model, record))
    if actions or record.state != last.state or "JOURNAL_STREAM" not in os.environ:
        print(text)
    return 0


def wait(name: str) -> int:
    """Wait for the first token; systemd's TimeoutStartSec limits the wait."""
    settings, began, said = read_settings(name), time.monotonic(), time.monotonic()
    while True:
        token, status, detail = ask_token(settings, settings.start_budget_s)
        waited = time.monotonic() - began
        if token:
            break
        if not _is_alive(os.environ.get("MAINPID", "")):
            print(f"vllm@{name} ended before its first token; its own last lines say why", file=sys.stderr)
            return 1
        if 400 <= status < 500 and status not in _OVERLOADED:  # noqa: PLR2004
            print(f"vllm@{name} does not serve {settings.model!r}: {detail}", file=sys.stderr)
            return 1
        if time.monotonic() - said >= 60:  # noqa: PLR2004
            said = time.monotonic()
            print(f"no token of vllm@{name} after {waited:.0f} s: {detail}", flush=True)
        time.sleep(1)
    kept = read_json(GOLDEN.format(name))
    same = kept.get("identity") == settings.golden_identity
    if kept and same and compare_golden(settings, kept, settings.start_budget_s) is False:
        write(CORRUPT.format(name), "")
        print(f"vllm@{name} gives other answers than its weights did before: its proxy stays closed", file=sys.stderr)
    print(f"vllm@{name} generated its first token after {waited:.0f} s")
    return 0


def _is_alive(pid: str) -> bool:
    with contextlib.suppress(ProcessLookupError, ValueError):
        os.kill(int(pid), 0)
        return True
    return not pid


def main(argv: list[str]) -> int:
    """Run a command."""
    commands = {"wait": wait, "check": check}
    if len(argv) != 2 or argv[0] not in commands:  # noqa: PLR2004
        print("usage: vllm_probe.py wait|check NAME", file=sys.stderr)
        return 2
    return commands[argv[0]](argv[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
