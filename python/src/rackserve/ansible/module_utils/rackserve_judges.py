# Apache License 2.0 (see LICENSE)
"""Evaluates what was read on a host or through an edge: pure functions, for the hosts and for the controller.

Runs on the hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import contextlib
import json
import re
import urllib.parse
from typing import Any, Dict, List, Mapping, Sequence, Tuple  # noqa: UP035 - Python 3.9 runs this

Verdict = Tuple[bool, str]  # noqa: UP006
Check = Mapping[str, Any]

HTTP_OK = 200
MIN_STREAM_CHUNKS = 2
PROBE_STALE_S = 60.0  # it looks every ten seconds, and for half a minute at most
FIRST_SCRAPE_S = 20  # Prometheus spreads its first requests over its interval, 15 s
EXCERPT = 120
ROUTE_UP = 0x1
ROUTE_REJECT = 0x200
KV_NAMES = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")  # the second is vLLM before 0.11


def excerpt(text: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT]}…"


def chat_request(check: Check, *, stream: bool) -> dict[str, Any]:
    """Return the body of the chat request that all checks send."""
    body: Dict[str, Any] = {  # noqa: UP006
        "model": check["model"],
        "messages": [{"role": "user", "content": check["prompt"]}],
        "temperature": 0,
        "max_tokens": int(check.get("max_tokens", 16)),
    }
    return {**body, "stream": True} if stream else body


def judge_models(status: int, body: str, served: Sequence[str]) -> Verdict:
    """Every served name is listed by /v1/models."""
    if status != HTTP_OK:
        return False, f"HTTP {status}: {excerpt(body)}"
    try:
        listed = sorted(str(model["id"]) for model in json.loads(body)["data"])
    except (ValueError, KeyError, TypeError):
        return False, f"not a list of models: {excerpt(body)}"
    missing = [name for name in served if name not in listed]
    if missing:
        return False, f"does not list {', '.join(missing)}; it lists {', '.join(listed) or 'nothing'}"
    return True, f"lists {', '.join(listed)}"


def judge_text(text: str, expect: str) -> Verdict:
    """Check generated text: it contains the expected word, or any text when none is expected."""
    if not text.strip():
        return False, "answered with no text"
    if expect and expect not in text:
        return False, f"answered {excerpt(text)!r}, which does not contain {expect!r}"
    return True, f"answered {excerpt(text)!r}"


def judge_chat(status: int, body: str, expect: str) -> Verdict:
    """Check the answer of /v1/chat/completions."""
    if status != HTTP_OK:
        return False, f"HTTP {status}: {excerpt(body)}"
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return False, f"not a chat completion: {excerpt(body)}"
    return judge_text(str(text or ""), expect)


def judge_data(status: int, body: str, key: str) -> Verdict:
    """Check the answer of a pooling model: numbers under a key of its first item."""
    if status != HTTP_OK:
        return False, f"HTTP {status}: {excerpt(body)}"
    try:
        found = json.loads(body)["data"][0][key]
        numbers = [float(number) for number in (found if isinstance(found, list) else [found])]
    except (ValueError, KeyError, IndexError, TypeError):
        return False, f"no {key} in the answer: {excerpt(body)}"
    if not any(numbers):
        return False, f"the {key} is nothing but zeros"
    return True, f"{key} of {len(numbers)} number(s)"


def judge_stream(status: int, body: str, expect: str) -> Verdict:
    """Check a stream of server-sent events: two chunks of content or more, no error inside, [DONE] at its end."""
    if status != HTTP_OK:
        return False, f"HTTP {status}: {excerpt(body)}"
    chunks: List[str] = []  # noqa: UP006
    done = False
    for line in body.splitlines():
        if not line.startswith("data:"):
            continue
        payload = line[len("data:") :].strip()
        if payload == "[DONE]":
            done = True
            continue
        try:
            event = json.loads(payload)
            if "error" in event:
                return False, f"the stream carries an error: {excerpt(payload)}"
            chunks += [c["delta"]["content"] for c in event["choices"] if c["delta"].get("content")]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False, f"not a chat chunk: {excerpt(payload)}"
    if len(chunks) < MIN_STREAM_CHUNKS:
        return False, f"{len(chunks)} chunks with content, at least {MIN_STREAM_CHUNKS} expected"
    if not done:
        return False, f"the stream ended after {len(chunks)} chunks without [DONE]"
    ok, detail = judge_text("".join(chunks), expect)
    return ok, f"{len(chunks)} chunks, {detail}"


def parse_metrics(text: str) -> dict[str, float]:
    """Return the sum over its labels of every sample in Prometheus' text format."""
    sums: Dict[str, float] = {}  # noqa: UP006
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name = line.split("{", 1)[0].split(None, 1)[0]
        rest = line.rsplit("}", 1)[-1] if "{" in line else line[len(name) :]
        with contextlib.suppress(ValueError, IndexError):
            sums[name] = sums.get(name, 0.0) + float(rest.split()[0])
    return sums


def judge_metrics(status: int, body: str, names: Sequence[str]) -> Verdict:
    """Every name has a sample."""
    if status != HTTP_OK:
        return False, f"HTTP {status}: {excerpt(body)}"
    have = parse_metrics(body)
    missing = [name for name in names if name not in have]
    if missing:
        return False, f"no sample of {', '.join(missing)}"
    return True, f"{len(have)} metrics, {len(names)} of {len(names)} required"


def awaits_first_scrape(target: Mapping[str, Any]) -> bool:
    """Return whether a target is scraped too rarely to wait for its first scrape."""
    interval = re.findall(r"(\d+)([dhms])(?![a-z])", target.get("scrapeInterval", ""))
    seconds = sum(int(count) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit] for count, unit in interval)
    return target["health"] == "unknown" and seconds > FIRST_SCRAPE_S


def judge_targets(status: int, body: str, expected: Sequence[Sequence[str]]) -> Verdict:
    """All of Prometheus' targets are up, and none that the inventory calls for is missing.

    Each expected target is a list of the addresses by which it may be scraped.
    """
    if status != HTTP_OK:
        return False, f"HTTP {status}: {excerpt(body)}"
    try:
        active = json.loads(body)["data"]["activeTargets"]
        seen = {urllib.parse.urlsplit(target["scrapeUrl"]).netloc for target in active}
        down = [t for t in active if t["health"] != "up" and not awaits_first_scrape(t)]
        bad = [f"{t['scrapeUrl']} is {t['health']} ({excerpt(t.get('lastError') or '-')})" for t in down]
    except (ValueError, KeyError, TypeError):
        return False, f"not an answer of Prometheus: {excerpt(body)}"
    missing = [names[0] for names in expected if not seen.intersection(names)]
    if missing:
        return False, f"not scraped: {', '.join(missing)}"
    if bad:
        return False, "; ".join(bad)
    if not active:
        return False, "Prometheus has no targets"
    return True, f"{len(active)} targets up"


def unit_state(shown: str) -> str:
    """Return a unit's state from the output of `systemctl show`: active, failed, …, or absent."""
    values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return values.get("ActiveState", "unknown") if values.get("LoadState") == "loaded" else "absent"


def judge_unit(shown: str) -> Verdict:
    """Check the output of `systemctl show`: loaded and active."""
    values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    state = unit_state(shown)
    if state == "absent":
        return False, f"there is no such unit (systemd says {values.get('LoadState', 'nothing')})"
    detail = f"{state} ({values.get('SubState', 'unknown')})"
    if values.get("NRestarts", "0") != "0":
        detail += f", started again {values['NRestarts']} times since it last served"
    return state == "active", detail


def find_default_routes(ipv4: str, ipv6: str) -> list[str]:
    """Return the interfaces with a default route, from /proc/net/route and /proc/net/ipv6_route."""
    found = []
    for line in ipv4.splitlines()[1:]:
        parts = line.split()
        is_default = len(parts) > 7 and parts[1] == "00000000" and parts[7] == "00000000"  # noqa: PLR2004 - columns
        if is_default and int(parts[3], 16) & ROUTE_UP and not int(parts[3], 16) & ROUTE_REJECT:
            found.append(f"{parts[0]} (IPv4)")
    for line in ipv6.splitlines():
        parts = line.split()
        is_default = len(parts) > 9 and set(parts[0]) == {"0"} and parts[1] == "00"  # noqa: PLR2004 - columns
        # The kernel itself keeps an unreachable ::/0 on lo.
        if is_default and parts[9] != "lo" and not int(parts[8], 16) & ROUTE_REJECT:
            found.append(f"{parts[9]} (IPv6)")
    return found


def summarize_status(before: str, after: str, seconds: float) -> dict[str, Any]:
    """Return load figures from two samples of /metrics."""
    first, second = parse_metrics(before), parse_metrics(after)
    kv = next((second[name] for name in KV_NAMES if name in second), None)
    tokens = "vllm:generation_tokens_total"
    rate = None
    if tokens in second and seconds > 0:
        # A counter that fell means a restart between the samples: what it shows now is what was made since.
        made = second[tokens] - first.get(tokens, 0.0)
        rate = round((made if made >= 0 else second[tokens]) / seconds, 1)
    return {
        "waiting": second.get("vllm:num_requests_waiting"),
        "running": second.get("vllm:num_requests_running"),
        "kv_use": kv,
        "tokens_per_s": rate,
    }


def summarize_health(record: str, now: float) -> dict[str, Any]:
    """Return what the probe of an instance decided last, from its record; `stale` where it has stopped looking."""
    try:
        found = json.loads(record)
        state, ages = str(found["state"]), [now - float(found[key]) for key in ("since", "last_token", "checked")]
        restarts = int(found["decisions"].get("restart", 0))
    except (ValueError, KeyError, TypeError, AttributeError):
        return dict.fromkeys(("health", "health_for_s", "last_token_age_s", "probe_restarts"))
    return {
        "health": state if ages[2] < PROBE_STALE_S else "stale",
        "health_for_s": round(ages[0], 1),
        "last_token_age_s": round(ages[1], 1) if found["last_token"] else None,
        "probe_restarts": restarts,
    }


def name_device(gpus: Sequence[str], listed: str) -> str:
    """Name the devices of an instance from nvidia-smi's "index, name, uuid, pci.bus_id" lines; without any it is a CPU.

    A GPU may be named by its index, UUID or PCI address; nvidia-smi lists no slice, which is named as it is.
    """
    names: Dict[str, str] = {}  # noqa: UP006
    indexes: List[str] = []  # noqa: UP006
    for line in listed.splitlines():
        index, *rest = line.split(", ")
        if index.isdigit() and rest:
            indexes.append(index)
            names.update({_device_key(key): f"{index} {rest[0]}" for key in (index, *rest[1:])})
    if not names:
        return "cpu"
    return "; ".join(
        names.get(_device_key(gpu), gpu if gpu.startswith("MIG-") else f"{gpu} missing") for gpu in gpus or indexes
    )


def _device_key(name: str) -> str:
    """Return a UUID or PCI address in lower case, with the domain of four digits that an inventory has."""
    lowered = name.lower()
    return lowered[4:] if lowered.startswith("00000000:") else lowered
