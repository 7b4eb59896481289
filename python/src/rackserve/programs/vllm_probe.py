#!/usr/bin/env python3
"""Probe an instance of vLLM by a generated token, and act on its state.

This one file needs Python 3.9 and its standard library; it runs on the hosts. `/health` is not used: a hung
engine still answers 200.

    vllm_probe.py wait NAME.DIGEST     ExecStartPost of an engine: exit 0 after the first token, 1 with the reason
    vllm_probe.py open NAME.DIGEST     after it, as root: start the listener, if this generation is the live one
    vllm_probe.py close NAME.DIGEST    ExecStopPost, as root: stop the listener, if this generation is the live one
    vllm_probe.py check NAME           every ten seconds, as root: decide the state of the live engine, close or open
                                       its listener, restart it

It reads probe.json of the generation: `engine` (a socket's path or host:port), `model`, `steps`, and the other fields
of `Settings`. docs/reference/health.md has a diagram of the states, and the limits of the probe.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from typing import Any, NamedTuple

LIVE = "/etc/vllm/instances/{}/current"
SETTINGS = "/etc/vllm/instances/{}/generations/{}/probe.json"
# Not on a disk: a full one must not stop the probe.
RECORD = "/run/rackserve/probe/{}.json"
GOLDEN = "/var/lib/rackserve/probe/{}.golden.json"
DRAINED = "/var/lib/rackserve/drained/{}"
CORRUPT = "/run/vllm-{}/corrupt"
METRICS = "/var/lib/prometheus/node-exporter"
PRESSURE = "/sys/fs/cgroup{}/cpu.pressure"
CPU_TIME = "/sys/fs/cgroup{}/cpu.stat"
STATES = ("starting", "ready", "busy", "hung", "corrupt", "stopped", "failed")
GOLDEN_PROMPT = (
    "Sphinx of black quartz, judge my vow. On 14 July 1789, 3 of 7 ships left Lisbon; E = mc^2, naïve café,\n"
    'def f(x): return x ** 2 # "ok"\nEinmal ist keinmal. 你好 世界. The capital of France is'
)
# Lengths of the prompts whose next token is requested.
_ENDS = (20, 60, 100, 140, len(GOLDEN_PROMPT))
_OVERLOADED = (408, 429, 503)
# Percent. An engine that waited for a CPU that long is starved, not hung: a restart would wait as well. One whose model
# runs on CPUs, and that used one that much, computes a step. Spinning threads do both, hence the limit in seconds.
_CPU_PERCENT = 50.0
_CPU_EXCUSE_S = 300.0
_ENGINE = re.compile(r'[{,]engine="([^"]*)"')
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
    """Settings of one instance's probe.

    `close_after_s` and `restart_after_s`: how long an engine with work may stand still. `steps`: series that the steps
    of an engine change, whatever it computes (`steps` in vllm_releases.yml). `computes_on_cpu`: the model runs on CPUs.
    `golden_identity` names model, release, dtype and hardware; empty: no golden answer.
    """

    engine: str
    model: str
    steps: tuple[str, ...]
    task: str = "generate"
    probe_timeout_s: float = 10.0
    suspect_timeout_s: float = 5.0
    metrics_timeout_s: float = 2.0
    start_budget_s: float = 600.0
    close_after_s: float = 14.0
    restart_after_s: float = 40.0
    load: tuple[str, ...] = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    computes_on_cpu: bool = False
    golden_identity: str = ""
    adapters: bool = False
    golden_every_s: float = 600.0
    golden_tolerance: float = 0.3


class Engine(NamedTuple):
    """One engine of an instance: a rank of a data-parallel one, or the only one.

    `steps`: its series as they stood last; `load`: its requests, running and waiting; `still_since`: seconds of the
    monotonic clock, which nobody sets, when it last moved or had nothing to do.
    """

    steps: str
    load: float
    still_since: float


class Observation(NamedTuple):
    """The result of one probe run.

    `slow`: no answer came in time, or the engine was full; `readable`: its page of metrics could be read; `advanced`:
    an engine moved meanwhile. `still`: seconds for which an engine with work has stood still; `silent`: the same of any
    engine that may have the probe's request. `cpu`: percent of the time, waited for one or used of one, the higher.
    `golden` is None where it was not compared.
    """

    unit: str
    invocation: str
    started: float
    token: bool = False
    listener: bool = False
    slow: bool = False
    readable: bool = False
    advanced: bool = False
    still: float = 0.0
    silent: float = 0.0
    cpu: float = 0.0
    golden: bool | None = None
    drained: bool = False
    detail: str = ""
    engines: dict[str, Engine] = {}  # noqa: RUF012 - never changed in place


class Record(NamedTuple):
    """State kept between probe runs.

    Times are seconds since the epoch, 0 for never; `closed`: the proxy, by the probe.
    """

    state: str = "stopped"
    since: float = 0.0
    checked: float = 0.0
    detail: str = ""
    invocation: str = ""
    last_token: float = 0.0
    golden_compared: float = 0.0
    closed: bool = False
    restarted: float = 0.0
    seconds: float = 0.0
    engines: dict[str, Engine] = {}  # noqa: RUF012 - never changed in place
    decisions: dict[str, int] = {}  # noqa: RUF012 - never changed in place


def decide(last: Record, seen: Observation, settings: Settings, now: float) -> tuple[Record, list[str]]:
    """Return the next record, and the actions: `close` or `open` the proxy, `restart` the engine.

    The proxy of an engine that has work and stands still is closed; later the engine is restarted. One that steps is
    left alone, however slow it is, and so, for a limited time, is one that waits for a CPU or computes on one. One
    whose golden answer changed is closed and kept for its operator. After a restart there is no other one before a
    token or the end of the start's budget.
    """
    fresh = last.invocation != seen.invocation
    record = last._replace(invocation=seen.invocation, checked=now, detail=seen.detail, engines=seen.engines)
    if fresh:  # a start of the unit opens the proxy itself
        record = record._replace(closed=False)
    state, decision = _next_state(record, seen, settings, now, stays_corrupt=last.state == "corrupt" and not fresh)
    actions = []
    if state in {"hung", "corrupt"} and not record.closed:
        actions.append("close")
    if state in {"ready", "busy"} and record.closed and not seen.drained:
        actions.append("open")
    if decision == "restart":
        actions.append("restart")
        record = record._replace(restarted=now)
    tally = dict(record.decisions)
    for key in {decision, *actions} - {""}:
        tally[key] = tally.get(key, 0) + 1
    return record._replace(
        state=state,
        since=last.since if state == last.state else now,
        last_token=now if seen.token else last.last_token,
        golden_compared=last.golden_compared if seen.golden is None else now,
        closed=(record.closed or "close" in actions) and "open" not in actions,
        decisions=tally,
    ), actions


def _next_state(
    record: Record, seen: Observation, settings: Settings, now: float, *, stays_corrupt: bool
) -> tuple[str, str]:
    """Return the state, and the decision on the engine, empty where there is none to take."""
    starting = record.last_token < seen.started and 0 <= now - seen.started < settings.start_budget_s
    restart_allowed = record.restarted < record.last_token or not 0 <= now - record.restarted < settings.start_budget_s
    # A token comes from one engine of the instance; another one may have requests and stand still.
    serves = seen.token and seen.still < settings.restart_after_s
    state, decision = "hung", ""
    if seen.unit != "active":
        state = {"failed": "failed", "activating": "starting", "reloading": "starting"}.get(seen.unit, "stopped")
    elif seen.golden is False or stays_corrupt:
        state = "corrupt"
    elif serves:
        state = "ready"
    elif not seen.listener and starting:
        state = "starting"
    elif not seen.token and _works(seen, settings):
        state, decision = "busy", "skip_busy"
    elif max(seen.still, seen.silent) >= settings.restart_after_s:
        decision = "restart" if restart_allowed else "restart_suppressed"
    return state, decision


def _works(seen: Observation, settings: Settings) -> bool:
    """Return whether an engine that gave no token works: on a long step, on others' requests, or once it has a CPU."""
    if not seen.slow:  # an error is an answer: it is not due to a long step
        return seen.advanced
    if seen.readable and seen.still < settings.close_after_s and seen.silent < settings.restart_after_s:
        return True
    return seen.cpu >= _CPU_PERCENT and seen.silent < _CPU_EXCUSE_S


def same_answer(wanted: dict[str, Any], found: dict[str, Any], tolerance: float) -> bool:
    """Return whether two answers to the golden prompt come from the same weights.

    The log-probabilities of the prompt's own tokens decide, or of what may follow it: each is computed from the same
    input, so that a difference does not grow from token to token as it does in generated text.
    """
    if wanted["tokens"] != found["tokens"] or len(wanted["logprobs"]) != len(found["logprobs"]):
        return False
    return all(abs(one - other) <= tolerance for one, other in zip(wanted["logprobs"], found["logprobs"]))


def engines_of(page: str, settings: Settings, now: float) -> dict[str, Engine]:
    """Return the engines on a page of metrics by the label `engine`, all as if they had moved just now."""
    steps: dict[str, list[str]] = {}
    load: dict[str, float] = {}
    for line in page.splitlines():
        name = line.split("{", 1)[0].split(" ", 1)[0]
        found = _ENGINE.search(line)
        engine = found[1] if found else ""
        if name in settings.steps:
            steps.setdefault(engine, []).append(f"{name} {line.rsplit(' ', 1)[-1]}")
        elif name in settings.load:
            with contextlib.suppress(ValueError):
                load[engine] = load.get(engine, 0.0) + float(line.rsplit(" ", 1)[-1])
    return {name: Engine("; ".join(sorted(rows)), load.get(name, 0.0), now) for name, rows in sorted(steps.items())}


def followed(kept: dict[str, Engine], found: dict[str, Engine], *, asked: bool) -> dict[str, Engine]:
    """Return the engines as they were found, with the time since which each stands still.

    Args:
        kept: the engines as they were before.
        found: those of a page of metrics; none where the page could not be read.
        asked: whether the probe waits for an answer: then no engine has nothing to do.
    """
    return {
        name: engine._replace(still_since=kept[name].still_since)
        if name in kept and kept[name].steps == engine.steps and (asked or engine.load)
        else engine
        for name, engine in found.items()
    } or kept


def stands_still(engines: dict[str, Engine], now: float) -> tuple[float, float]:
    """Return for how many seconds an engine with requests has stood still, and for how many any engine has.

    A hung engine does not report the requests that came afterwards, so the only engine of an instance counts as loaded.
    """
    ages = {name: max(0.0, now - engine.still_since) for name, engine in engines.items()}
    loaded = [age for name, age in ages.items() if engines[name].load or len(engines) == 1]
    return max(loaded, default=0.0), max(ages.values(), default=0.0)


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


class Connection(http.client.HTTPConnection):
    """HTTP to a socket's path or to host:port."""

    def __init__(self, engine: str, timeout: float) -> None:
        super().__init__("localhost" if engine.startswith("/") else engine, timeout=timeout)
        self._path = engine if engine.startswith("/") else ""

    def connect(self) -> None:
        """Connect to the socket or the address."""
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
    with contextlib.closing(Connection(settings.engine, timeout)) as connection:
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


def live_generation(name: str) -> str:
    """Return NAME.DIGEST of the live generation of an instance, as its unit and its folder in /run have it.

    Raises:
        SystemExit: when there is none.
    """
    try:
        return f"{name}.{os.path.basename(os.readlink(LIVE.format(name)))}"
    except OSError as bad:
        print(f"{name} has no live generation ({bad}); run the role vllm again", file=sys.stderr)
        raise SystemExit(2) from bad


def read_settings(generation: str) -> Settings:
    """Return the probe's settings of a generation, NAME.DIGEST.

    Raises:
        SystemExit: when its file cannot be used.
    """
    path = SETTINGS.format(*generation.rsplit(".", 1))
    try:
        with open(path, encoding="utf-8") as source:
            raw: dict[str, Any] = json.load(source)
        raw.update({key: tuple(raw[key]) for key in ("steps", "load") if key in raw})
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


def read_cpu_time(group: str) -> float | None:
    """Return the seconds of CPU time that a control group has used; None when unknown."""
    if group:
        with contextlib.suppress(OSError, ValueError), open(CPU_TIME.format(group), encoding="utf-8") as source:
            return next((int(line.split()[1]) / 1e6 for line in source if line.startswith("usage_usec ")), None)
    return None


def observe(name: str, live: str, settings: Settings, last: Record) -> Observation:
    """Probe the live generation of an instance: its unit, a token, the steps of its engines, and its golden answer."""
    keys = "ActiveState,InvocationID,ControlGroup,ExecMainStartTimestampMonotonic"
    shown = systemctl("show", f"vllm@{live}.service", f"--property={keys}").splitlines()
    unit = dict(line.split("=", 1) for line in shown if "=" in line)
    age = time.clock_gettime(time.CLOCK_MONOTONIC) - int(unit.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
    seen = Observation(
        unit.get("ActiveState", "unknown"),
        unit.get("InvocationID", ""),
        time.time() - age,
        drained=os.path.exists(DRAINED.format(name)),
    )
    if seen.unit != "active":
        return seen._replace(detail=f"the unit is {seen.unit}")
    fresh, group = last.invocation != seen.invocation, unit.get("ControlGroup", "")
    cpu_before, page = read_cpu_time(group), read_page(settings)
    began = time.monotonic()
    unanswered = last.last_token < last.checked
    engines = followed({} if fresh else last.engines, engines_of(page, settings, began), asked=unanswered)
    before = engines = engines or {"": Engine("", 0.0, began)}
    # A probe run of an engine that is hung already needs less time to see that there is no progress.
    timeout = settings.suspect_timeout_s if last.state == "hung" else settings.probe_timeout_s
    token, status, detail = ask_token(settings, timeout)
    seen = seen._replace(token=token, listener=status >= 0, slow=status in {0, *_OVERLOADED}, detail=detail)
    if token:
        engines = followed(engines, engines_of(read_page(settings), settings, time.monotonic()), asked=False)
        still = stands_still(engines, time.monotonic())[0] if len(engines) > 1 else 0.0
        busy = any(engine.load for engine in before.values())
        golden = _golden(live, settings, last, seen.started, busy=busy)
        return seen._replace(engines=engines, still=still, golden=golden)
    while True:
        page = read_page(settings)
        now = time.monotonic()
        engines = followed(engines, engines_of(page, settings, now), asked=True)
        still, silent = stands_still(engines, now)
        if not (seen.slow and page and now - began <= still < settings.close_after_s):
            break
        time.sleep(settings.close_after_s / 14)
    advanced = any(before[name].steps != engine.steps for name, engine in engines.items() if name in before)
    waited, used = read_waited(group), 0.0
    if waited >= _CPU_PERCENT:
        detail += f"; it waits for a CPU {waited:.0f} % of the time"
    cpu_after = read_cpu_time(group)
    if settings.computes_on_cpu and cpu_before is not None and cpu_after is not None:
        used = 100 * (cpu_after - cpu_before) / max(time.monotonic() - began, 0.1)
    if used >= _CPU_PERCENT and not advanced:
        detail += f"; it computes, on {used:.0f} % of a CPU"
    return seen._replace(
        readable=bool(page),
        advanced=advanced,
        still=still,
        silent=silent,
        cpu=max(waited, used),
        detail=detail,
        engines=engines,
    )


def _golden(live: str, settings: Settings, last: Record, started: float, *, busy: bool) -> bool | None:
    """Return whether the golden answer is as before; None where it is not due, or cannot be compared now."""
    if os.path.exists(CORRUPT.format(live)):
        return False
    name = live.rsplit(".", 1)[0]
    due = last.golden_compared < started or time.time() - last.golden_compared >= settings.golden_every_s
    return compare_or_keep(name, settings) if settings.golden_identity and due and not busy else None


def compare_or_keep(name: str, settings: Settings) -> bool | None:
    """Compare an engine's golden answer with the kept one; keep the first one when it is repeated."""
    kept = read_json(GOLDEN.format(name))
    if kept.get("identity") == settings.golden_identity:
        return compare_golden(settings, kept, settings.probe_timeout_s)
    first = ask_golden(settings, settings.probe_timeout_s)
    if not first or not first["logprobs"] or not compare_golden(settings, first, settings.probe_timeout_s):
        return None
    row = {"identity": settings.golden_identity, "kept": time.time(), **first}
    return True if keep(GOLDEN.format(name), json.dumps(row, ensure_ascii=False)) else None


def read_record(name: str) -> Record:
    """Return what the last probe run left, without what is not understood."""
    kept = {key: value for key, value in read_json(RECORD.format(name)).items() if key in Record._fields}
    try:
        kept["engines"] = {engine: Engine(**row) for engine, row in kept.get("engines", {}).items()}
    except (AttributeError, TypeError):
        kept["engines"] = {}
    return Record(**kept)


def keep(path: str, text: str) -> bool:
    """Write a file; return False after printing why it could not be written, as on a full disk."""
    try:
        write(path, text)
    except OSError as failed:
        print(f"{path} is not written: {failed}", file=sys.stderr)
        return False
    return True


def check(name: str) -> int:
    """Probe an instance once, decide, record the decision, act and report; exit 1 where a file could not be written."""
    live, now = live_generation(name), time.time()
    settings, last = read_settings(live), read_record(name)
    seen = observe(name, live, settings, last)
    record, actions = decide(last, seen, settings, time.time())
    record = record._replace(seconds=round(time.time() - now, 3))
    engines = {engine: row._asdict() for engine, row in record.engines.items()}
    row = {"instance": name, "model": settings.model, **record._asdict(), "engines": engines, "actions": actions}
    text = json.dumps(row)
    written = keep(RECORD.format(name), text + "\n")  # before acting: an interrupted check must not lose this
    proxy = [f"vllm-proxy@{name}.socket", f"vllm-proxy@{name}.service"]
    for action in actions:
        if action == "close":
            systemctl("stop", *proxy)
        elif action == "open":
            systemctl("start", proxy[0])
        else:  # a hung engine does not react to SIGTERM; its streams are lost already
            systemctl("kill", "--signal=SIGKILL", f"vllm@{live}.service")
            systemctl("restart", "--no-block", f"vllm@{live}.service")
    if os.path.isdir(METRICS):
        page = exposition(name, settings.model, record)
        written = keep(f"{METRICS}/rackserve_instance_{name}.prom", page) and written
    if actions or record.state != last.state or "JOURNAL_STREAM" not in os.environ:
        print(text)
    return 0 if written else 1


def wait(generation: str) -> int:
    """Wait for the first token of a generation; systemd's TimeoutStartSec limits the wait."""
    settings, began, said = read_settings(generation), time.monotonic(), time.monotonic()
    name = generation.rsplit(".", 1)[0]
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
        keep(CORRUPT.format(generation), "")
        print(f"vllm@{name} gives other answers than its weights did before: its proxy stays closed", file=sys.stderr)
    print(f"vllm@{name} generated its first token after {waited:.0f} s")
    return 0


def open_listener(generation: str) -> int:
    """Start the listener of an instance, if its engine is the live one."""
    return _switch_listener("start", generation)


def close_listener(generation: str) -> int:
    """Stop the listener of an instance, if its engine was the live one."""
    return _switch_listener("stop", generation)


def _switch_listener(verb: str, generation: str) -> int:
    name = generation.rsplit(".", 1)[0]
    if live_generation(name) != generation:
        return 0
    return subprocess.run(["systemctl", verb, f"vllm-proxy@{name}.socket"], timeout=60, check=False).returncode


def _is_alive(pid: str) -> bool:
    with contextlib.suppress(ProcessLookupError, ValueError):
        os.kill(int(pid), 0)
        return True
    return not pid


def main(argv: list[str]) -> int:
    """Run a command."""
    commands = {"wait": wait, "check": check, "open": open_listener, "close": close_listener}
    if len(argv) != 2 or argv[0] not in commands:  # noqa: PLR2004
        print("usage: vllm_probe.py check NAME, or wait|open|close NAME.DIGEST", file=sys.stderr)
        return 2
    return commands[argv[0]](argv[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
