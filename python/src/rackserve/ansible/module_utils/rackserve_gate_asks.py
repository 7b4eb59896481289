# Apache License 2.0 (see LICENSE)
"""What the gates ask an engine: requests in, plain data for the judges out.

Runs on the hosts: Python 3.9 or newer, standard library only. A request that fails on the engine's side is noted and
sent again, so that one bad answer fails the gate `errors` and no other.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple  # noqa: UP035 - Python 3.9 runs this

from ansible.module_utils import rackserve_gate_chats as chats
from ansible.module_utils.rackserve_gate_cases import calls_of, case_problem
from ansible.module_utils.rackserve_gates import distance, percentile
from ansible.module_utils.rackserve_judges import excerpt, parse_metrics
from ansible.module_utils.vllm_probe import (
    GOLDEN_PROMPT,
    Connection,
    Settings,
    ask_golden,
    ask_token,
)

TRIES = 3
SERVER_ERROR = 500
OK = 200
WARM_UP = 2
ANSWERS, ANSWERS_BEFORE, TOKENS = 30, 60, 24
# Requests at once in the gate `errors`, few beside real traffic.
AT_ONCE = 4
ENOUGH_FAILURES = 5
LOAD = ("vllm:num_requests_running", "vllm:num_requests_waiting")


class Event(NamedTuple):
    """One event of a stream: seconds since the request was sent, and its data."""

    at: float
    data: Dict[str, Any]  # noqa: UP006


class Engine:
    """An engine and what was asked of it."""

    def __init__(self, settings: Settings, timeout_s: float) -> None:
        self.settings, self.timeout_s = settings, timeout_s
        self.sent = 0
        self.failed: List[str] = []  # noqa: UP006
        self._lock = threading.Lock()

    def ask(self, path: str, body: Mapping[str, Any], tries: int = TRIES) -> Tuple[int, Dict[str, Any], str]:  # noqa: UP006
        """Return status, JSON object (empty where there is none) and text of an answer; 0 where none came."""
        status, events, text = self._asked(path, body, tries)
        return status, events[0].data if events else {}, text

    def stream(self, path: str, body: Mapping[str, Any], tries: int = TRIES) -> Tuple[int, List[Event], str]:  # noqa: UP006
        """Return status, events and what went wrong of a streamed answer; one without an end failed."""
        return self._asked(path, {**body, "stream": True, "stream_options": {"include_usage": True}}, tries)

    def _asked(self, path: str, body: Mapping[str, Any], tries: int) -> Tuple[int, List[Event], str]:  # noqa: UP006
        status, text = 0, ""
        events: List[Event] = []  # noqa: UP006
        for _ in range(tries):
            try:
                status, events, text = self._once(path, body)
                failure = f"HTTP {status}: {excerpt(text)}" if status >= SERVER_ERROR else ""
            except (OSError, http.client.HTTPException, ValueError) as failed:
                status, events = 0, []
                failure = text = f"{type(failed).__name__}: {excerpt(str(failed))}"
            with self._lock:
                self.sent += 1
                self.failed += [f"{path} {failure}"] if failure else []
            if not failure:
                break
        return status, events, text

    def _once(self, path: str, body: Mapping[str, Any]) -> Tuple[int, List[Event], str]:  # noqa: UP006
        with contextlib.closing(Connection(self.settings.engine, self.timeout_s)) as connection:
            data = json.dumps({"model": self.settings.model, **body})
            began = time.monotonic()
            connection.request("POST", path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if not body.get("stream") or answer.status != OK:
                text = answer.read().decode(errors="replace")
                found = json.loads(text) if answer.status == OK else {}
                return answer.status, [Event(time.monotonic() - began, found)], text
            return answer.status, list(_events(answer, began)), ""

    def load(self) -> float:
        """Return the requests that the engine has now; 0 where its metrics do not say."""
        try:
            with contextlib.closing(Connection(self.settings.engine, self.settings.metrics_timeout_s)) as connection:
                connection.request("GET", "/metrics")
                page = parse_metrics(connection.getresponse().read().decode(errors="replace"))
        except (OSError, http.client.HTTPException):
            return 0.0
        return float(sum(page.get(name, 0.0) for name in LOAD))


def _events(answer: http.client.HTTPResponse, began: float) -> List[Event]:  # noqa: UP006
    """Return the events of a stream.

    Raises:
        ValueError: when the stream carries an error, or ends without [DONE].
    """
    events: List[Event] = []  # noqa: UP006
    for line in iter(answer.readline, b""):
        if not line.startswith(b"data:"):
            continue
        at, payload = time.monotonic() - began, line[len(b"data:") :].strip()
        if payload == b"[DONE]":
            answer.read()  # the end of the connection is the engine's
            return events
        data = json.loads(payload)
        if "error" in data:
            raise ValueError(f"the stream carries an error: {payload.decode(errors='replace')}")
        events.append(Event(at, data))
    raise ValueError(f"the stream ended without [DONE] after {len(events)} events")


def token(engine: Engine) -> Tuple[bool, str, float]:  # noqa: UP006
    """Ask for a token, a vector or a score; return whether it came, a description, and seconds."""
    began = time.monotonic()
    came, status, detail = False, 0, ""
    for _ in range(TRIES):
        came, status, detail = ask_token(engine.settings, engine.timeout_s)
        engine.sent += 1
        if came or 0 < status < SERVER_ERROR:
            break
        engine.failed.append(detail)
    return came, detail, time.monotonic() - began


def golden(engine: Engine) -> Optional[Dict[str, Any]]:  # noqa: UP006, UP045
    """Return the golden answer: `kind`, `tokens`, `values`; None where none came."""
    if engine.settings.task == "embed":
        _, found, _ = engine.ask("/v1/embeddings", {"input": GOLDEN_PROMPT})
        vector = (found.get("data") or [{}])[0].get("embedding") or []
        return {"kind": "embedding", "tokens": [], "values": [round(float(x), 5) for x in vector]}
    if engine.settings.task == "score":
        _, found, _ = engine.ask("/v1/score", {"text_1": "What is a cat?", "text_2": GOLDEN_PROMPT})
        score = (found.get("data") or [{}])[0].get("score")
        return {"kind": "score", "tokens": [], "values": [] if score is None else [round(float(score), 5)]}
    found = ask_golden(engine.settings, engine.timeout_s)
    kind = "next" if engine.settings.adapters else "echo"
    return found and {"kind": kind, "tokens": found["tokens"], "values": found["logprobs"]}


def golden_before(engine: Engine) -> Optional[Dict[str, Any]]:  # noqa: UP006, UP045
    """Return the golden answer of an engine that serves, and whether it was `stable` when it was asked again."""
    for _ in range(TRIES):
        answers = [one for one in (golden(engine), golden(engine)) if one and one["values"]]
        if len(answers) == 2:  # noqa: PLR2004 - it was asked twice
            apart = distance(answers[0], answers[1], compare_tokens=True)
            limit = 0.01 if engine.settings.task != "generate" else engine.settings.golden_tolerance / 2
            return {**answers[0], "stable": apart <= limit}
    return None


def _prompt(number: int) -> str:
    """Return a text that no cache of prefixes has: its beginning is its own."""
    return f"{random.randrange(10**8):08d}-{number}. Tell a story of a lighthouse keeper and the sea, and of a ship:"  # noqa: S311 - no secret


def timed(engine: Engine, number: int) -> Optional[Dict[str, float]]:  # noqa: UP006, UP045
    """Return the times of one answer in milliseconds, see `speed_of`; None where it was none."""
    row = {"load": engine.load()}
    if engine.settings.task != "generate":
        path = {"embed": "/v1/embeddings", "score": "/v1/score"}[engine.settings.task]
        body = {"input": _prompt(number)} if path.endswith("embeddings") else {"text_1": "A", "text_2": _prompt(number)}
        began = time.monotonic()
        status, _, _ = engine.ask(path, body, tries=1)
        return {**row, "first_ms": 1000 * (time.monotonic() - began)} if status == OK else None
    asked = {"prompt": _prompt(number), "max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True}
    status, events, _ = engine.stream("/v1/completions", asked, tries=1)
    times = [event.at for event in events if event.data.get("choices")]
    told = [event.data["usage"]["completion_tokens"] for event in events if event.data.get("usage")]
    tokens = int(told[-1]) if told else len(times)
    if status != OK or len(times) < 3 or tokens < 2:  # noqa: PLR2004 - two gaps
        return None
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]  # noqa: B905, RUF007 - Python 3.9
    return {
        **row,
        "first_ms": 1000 * times[0],
        "between_ms": 1000 * (times[-1] - times[0]) / (tokens - 1),
        "p95_ms": 1000 * percentile(gaps, 0.95),
    }


def speed(engine: Engine, answers: int, seconds: float) -> List[Dict[str, float]]:  # noqa: UP006
    """Return the times of short answers, one after the other; the first answers are not counted.

    Args:
        engine: the engine.
        answers: how many.
        seconds: after so long no other answer is asked for.
    """
    end = time.monotonic() + seconds
    rows = []
    for number in range(WARM_UP + answers):
        if time.monotonic() > end:
            break
        row = timed(engine, number)
        rows += [row] if row and number >= WARM_UP else []
    return rows


def tools(engine: Engine, parser: str) -> Dict[str, Dict[str, str]]:  # noqa: UP006
    """Return the outcome of each request with tools, whole and streamed, by its key; see `tool_outcome`."""
    asked: Dict[str, Dict[str, Any]] = {  # noqa: UP006
        f"prompt {number}": {"messages": [{"role": "user", "content": prompt}]}
        for number, prompt in enumerate(chats.TOOL_PROMPTS, 1)
    }
    written = chats.WRITTEN_CALLS.get(parser)
    if written:
        # The second name is that of vLLM up to 0.11; each release ignores the one that it does not know.
        dictated = {"structured_outputs": {"choice": [written]}, "guided_choice": [written]}
        asked[f"written {parser}"] = {**asked["prompt 1"], **dictated}
    found = {}
    for key, body in asked.items():
        whole = {**body, "tools": chats.TOOLS, "tool_choice": "auto", "temperature": 0.0, "max_tokens": 128}
        for how, ask in (("whole", _whole_call), ("streamed", _streamed_call)):
            outcome = ask(engine, whole)
            if outcome["kind"] != "called":  # a second look before anything is said
                outcome = ask(engine, whole)
            found[f"{key}, {how}"] = outcome
    return found


def _whole_call(engine: Engine, body: Mapping[str, Any]) -> Dict[str, str]:  # noqa: UP006
    status, found, text = engine.ask("/v1/chat/completions", body)
    if status != OK:
        return {"kind": "refused", "detail": f"HTTP {status}: {excerpt(text)}"}
    choice = (found.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    cut = choice.get("finish_reason") == "length"
    outcome: Dict[str, str] = chats.tool_outcome(str(message.get("content") or ""), calls_of(message), cut=cut)  # noqa: UP006
    return outcome


def _streamed_call(engine: Engine, body: Mapping[str, Any]) -> Dict[str, str]:  # noqa: UP006
    status, events, text = engine.stream("/v1/chat/completions", body)
    if status != OK:
        return {"kind": "refused", "detail": f"HTTP {status}: {excerpt(text)}"}
    content, calls, reason = joined(events)
    outcome: Dict[str, str] = chats.tool_outcome(content, calls, cut=reason == "length")  # noqa: UP006
    return outcome


def joined(events: List[Event]) -> Tuple[str, List[Dict[str, str]], str]:  # noqa: UP006
    """Return text, tool calls and the reason of the end of a streamed chat."""
    content, reason = "", ""
    calls: Dict[int, Dict[str, str]] = {}  # noqa: UP006
    for event in events:
        for choice in event.data.get("choices") or ():
            delta = choice.get("delta") or {}
            content += delta.get("content") or ""
            reason = choice.get("finish_reason") or reason
            for part in delta.get("tool_calls") or ():
                call = calls.setdefault(int(part.get("index") or 0), {"name": "", "arguments": ""})
                function = part.get("function") or {}
                call["name"] += function.get("name") or ""
                call["arguments"] += function.get("arguments") or ""
    return content, [calls[index] for index in sorted(calls)], reason


def template(engine: Engine) -> Dict[str, Any]:  # noqa: UP006
    """Return what is known of the chat template, as `judge_template` takes it."""
    rendered, reason = _rendered(engine, generation=True)
    found: Dict[str, Any] = {"rendered": rendered, "shape": {}, "garbage": [], "reason": reason}  # noqa: UP006
    if rendered is not None:
        bare, _ = _rendered(engine, generation=False)
        single = {marker: _is_token(engine, marker) for marker in chats.markers_in(rendered)}
        found["shape"] = chats.chat_shape(rendered, bare if bare is not None else rendered, single)
    for prompt in chats.CHAT_PROMPTS:
        body = {"messages": [{"role": "user", "content": prompt}], "temperature": 0.0, "max_tokens": 64}
        status, answer, text = engine.ask("/v1/chat/completions", {**body, "skip_special_tokens": False})
        if status != OK:
            found["reason"] = f"HTTP {status}: {excerpt(text)}"
            continue
        choice = (answer.get("choices") or [{}])[0]
        message = choice.get("message") or {}
        said = str(message.get("content") or message.get("reasoning_content") or message.get("reasoning") or "")
        found["garbage"].append(chats.is_garbage(_without_end(said), ended=choice.get("finish_reason") == "stop"))
    return found


def _without_end(text: str) -> str:
    """Return an answer without the one marker that ends it, which stands in it where special tokens are shown."""
    ends = [marker for marker in chats.markers_in(text) if text.rstrip().endswith(marker)]
    return text.rstrip()[: -len(ends[0])] if ends else text


def _rendered(engine: Engine, *, generation: bool) -> Tuple[Optional[str], str]:  # noqa: UP006, UP045
    """Return the prompt that the template makes of the fixed chat, and why there is none."""
    body = {"messages": list(chats.CHAT), "add_generation_prompt": generation}
    status, found, text = engine.ask("/tokenize", body)
    if status != OK:
        return None, f"HTTP {status}: {excerpt(text)}"
    status, back, text = engine.ask("/detokenize", {"tokens": found.get("tokens") or []})
    return (str(back.get("prompt") or ""), "") if status == OK else (None, f"HTTP {status}: {excerpt(text)}")


def _is_token(engine: Engine, marker: str) -> bool:
    _, found, _ = engine.ask("/tokenize", {"prompt": marker, "add_special_tokens": False})
    return found.get("count") == 1


def many(engine: Engine, requests: int, seconds: float, *, chat: bool) -> None:
    """Send short requests, a few at once: whole and streamed completions, and chats where the engine takes them.

    Args:
        engine: the engine.
        requests: how many; an engine that failed some has shown what it is, and is asked for no more.
        seconds: after so long no other request is sent.
        chat: whether the engine takes chats.
    """
    kinds: List[Tuple[str, Dict[str, Any]]] = [  # noqa: UP006
        ("/v1/completions", {"prompt": "Hello", "max_tokens": 1}),
        ("/v1/completions", {"prompt": "Hello", "max_tokens": 2, "stream": True}),
    ]
    if chat:
        kinds.append(("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}))
    if engine.settings.task == "embed":
        kinds = [("/v1/embeddings", {"input": "Hello"})]
    elif engine.settings.task == "score":
        kinds = [("/v1/score", {"text_1": "Hello", "text_2": "Hello"})]
    end, had = time.monotonic() + seconds, len(engine.failed)

    def one(number: int) -> None:
        if time.monotonic() < end and len(engine.failed) < had + ENOUGH_FAILURES:
            path, body = kinds[number % len(kinds)]
            (engine.stream if body.get("stream") else engine.ask)(path, body, 1)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(requests)))


def case_answer(engine: Engine, case: Mapping[str, Any]) -> Dict[str, Any]:  # noqa: UP006
    """Return the answer to a case of the site, as `case_problem` takes it."""
    wanted = case["expect"].get("embedding")
    if wanted:
        vector, error = _vector(engine, case["prompt"])
        reference, second = (wanted["vector"], "") if wanted.get("vector") else _vector(engine, wanted["text"])
        return {"vector": vector, "reference": reference, "error": error or second}
    body: Dict[str, Any] = {"max_tokens": case["max_tokens"], "temperature": 0.0}  # noqa: UP006
    if case.get("model"):
        body["model"] = case["model"]
    if case.get("tools"):
        body["tools"] = case["tools"]
    body["messages"] = case.get("messages") or [{"role": "user", "content": case["prompt"]}]
    status, found, text = engine.ask("/v1/chat/completions", body)
    if status != OK:
        return {"error": f"HTTP {status}: {excerpt(text)}"}
    message = (found.get("choices") or [{}])[0].get("message") or {}
    return {"text": str(message.get("content") or ""), "calls": calls_of(message), "error": ""}


def _vector(engine: Engine, text: str) -> Tuple[List[float], str]:  # noqa: UP006
    status, found, said = engine.ask("/v1/embeddings", {"input": text})
    vector = (found.get("data") or [{}])[0].get("embedding") or []
    return vector, "" if status == OK and vector else f"HTTP {status}: {excerpt(said)}"


def cases(engine: Engine, wanted: List[Mapping[str, Any]]) -> Tuple[Dict[str, str], int]:  # noqa: UP006
    """Return the problem of each case by its name, and how many answers it took; a wrong one is asked for again."""
    problems, asked = {}, 0
    for case in wanted:
        for _ in range(2):
            asked += 1
            problems[case["name"]] = case_problem(case["expect"], case_answer(engine, case))
            if not problems[case["name"]]:
                break
    return problems, asked
