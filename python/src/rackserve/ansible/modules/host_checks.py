# Apache License 2.0 (see LICENSE)
"""Ansible module: looks at its host and reports; the pure judges below are used on the controller too.

Runs on the hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_checks
short_description: Run typed, read-only checks on a host
description:
  - Runs every check of a list and returns what each one found. Never changes the host; check mode makes no difference.
options:
  checks:
    description:
      - Checks, each with the keys name and kind, and those of its kind.
      - "Kinds: unit, models, chat, stream, metrics, targets, runtime, no_default_route, status, unplanned."
    type: list
    elements: dict
    required: true
  facts:
    description: Values of the inventory that the controller wants back with the result.
    type: dict
    default: {}
  strict:
    description: Fail the task when a check fails. The checks are returned either way.
    type: bool
    default: true
author: The rackserve authors
"""

EXAMPLES = r"""
- name: Look at this host
  host_checks:
    checks:
      - {name: unit nginx, kind: unit, unit: nginx.service}
"""

RETURN = r"""
checks:
  description: "One entry per check: name, ok, detail, and data for the kinds status and rotation."
  returned: always
  type: list
facts:
  description: The facts given.
  returned: always
  type: dict
"""

import contextlib
import http.client
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple  # noqa: UP035 - Python 3.9 runs this

from ansible.module_utils.basic import AnsibleModule

Verdict = Tuple[bool, str]  # noqa: UP006
Check = Mapping[str, Any]

HTTP_OK = 200
FIRST_SCRAPE_S = 20  # Prometheus spreads its first requests over its interval, 15 s
MIN_STREAM_CHUNKS = 2
GET_TIMEOUT_S = 10.0
CHAT_TIMEOUT_S = 120.0
SAMPLE_PAUSE_S = 1.0
PROBE_STALE_S = 60.0  # it looks every ten seconds, and for half a minute at most
EXCERPT = 120
ROUTE_UP = 0x1
ROUTE_REJECT = 0x200
KV_NAMES = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")  # the second is vLLM before 0.11
# A site's proxy has no business between a host and its own ports.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def excerpt(text: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT]}…"


def chat_request(check: Check, *, stream: bool) -> dict[str, Any]:
    """Return the body of the one question that is asked everywhere."""
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
    """Judge generated text: it holds the expected word, or anything at all when none is expected."""
    if not text.strip():
        return False, "answered with no text"
    if expect and expect not in text:
        return False, f"answered {excerpt(text)!r}, which does not contain {expect!r}"
    return True, f"answered {excerpt(text)!r}"


def judge_chat(status: int, body: str, expect: str) -> Verdict:
    """Judge the answer of /v1/chat/completions."""
    if status != HTTP_OK:
        return False, f"HTTP {status}: {excerpt(body)}"
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return False, f"not a chat completion: {excerpt(body)}"
    return judge_text(str(text or ""), expect)


def judge_data(status: int, body: str, key: str) -> Verdict:
    """Judge the answer of a model that does not generate: numbers under a key of its first item."""
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
    """Judge a stream of server-sent events: two chunks of content or more, no error inside, [DONE] at its end."""
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


def judge_targets(status: int, body: str, expected: Sequence[Sequence[str]]) -> Verdict:
    """All of Prometheus' targets are up, and none that the inventory calls for is missing.

    Each expected target is a list of the addresses by which it may be scraped.
    """
    if status != HTTP_OK:
        return False, f"HTTP {status}: {excerpt(body)}"
    try:
        active = json.loads(body)["data"]["activeTargets"]
        seen = {urllib.parse.urlsplit(target["scrapeUrl"]).netloc for target in active}
        down = [t for t in active if t["health"] != "up"]
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
    """Judge the output of `systemctl show`: loaded and active."""
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


def fetch(url: str, body: Optional[Mapping[str, Any]] = None, timeout: float = GET_TIMEOUT_S) -> tuple[int, str]:  # noqa: UP045
    """GET an address, or POST a JSON body to it; return the status and the text, of errors too."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})  # noqa: S310 - http only, from the plan
    try:
        with _OPENER.open(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode("utf-8", "replace")


def _show_unit(unit: str) -> str:
    argv = ["systemctl", "show", unit, "--property=LoadState,ActiveState,SubState,NRestarts"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=GET_TIMEOUT_S).stdout


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""  # a kernel without IPv6 has no such file, nor has a host without a probe


def check_unit(check: Check) -> Verdict:
    """The unit is loaded and active."""
    return judge_unit(_show_unit(str(check["unit"])))


def check_models(check: Check) -> Verdict:
    """The instance lists its served names."""
    return judge_models(*fetch(f"{check['url']}/v1/models"), check["served"])


def check_chat(check: Check) -> Verdict:
    """The instance answers the question."""
    answer = fetch(f"{check['url']}/v1/chat/completions", chat_request(check, stream=False), CHAT_TIMEOUT_S)
    return judge_chat(*answer, str(check["expect"]))


def check_stream(check: Check) -> Verdict:
    """The instance answers the question as a stream."""
    answer = fetch(f"{check['url']}/v1/chat/completions", chat_request(check, stream=True), CHAT_TIMEOUT_S)
    return judge_stream(*answer, str(check["expect"]))


def check_embed(check: Check) -> Verdict:
    """The instance makes a vector of the question."""
    body = {"model": check["model"], "input": check["prompt"]}
    return judge_data(*fetch(f"{check['url']}/v1/embeddings", body, CHAT_TIMEOUT_S), "embedding")


def check_score(check: Check) -> Verdict:
    """The instance scores the question against itself."""
    body = {"model": check["model"], "text_1": check["prompt"], "text_2": check["prompt"]}
    return judge_data(*fetch(f"{check['url']}/v1/score", body, CHAT_TIMEOUT_S), "score")


def check_metrics(check: Check) -> Verdict:
    """The address exposes the metrics."""
    return judge_metrics(*fetch(str(check["url"])), check["names"])


def check_targets(check: Check) -> Verdict:
    """Prometheus scrapes all it should. What it has not asked once since it was started is waited for."""
    for _ in range(FIRST_SCRAPE_S):
        answer = fetch(f"{check['url']}/api/v1/targets")
        if '"health"' in answer[1] and '"unknown"' not in answer[1]:
            break
        time.sleep(1)
    return judge_targets(*answer, check["expected"])


def check_runtime(check: Check) -> Verdict:
    """The runtime's current link points at a complete release."""
    link = Path(str(check["current"]))
    try:
        release = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return False, f"{link} does not lead to a release"
    if not (release / str(check["stamp"])).is_file():
        return False, f"{release} is not complete: it has no {check['stamp']}"
    return True, f"release {release.name}"


def check_no_default_route(_check: Check) -> Verdict:
    """The host has no way out of its networks."""
    routes = find_default_routes(_read("/proc/net/route"), _read("/proc/net/ipv6_route"))
    if routes:
        return False, f"default route by {', '.join(routes)}; remove it, or set stack_verify_no_default_route: false"
    return True, "no default route"


def check_unplanned(check: Check) -> Verdict:
    """The inventory itself is at fault: a check that could not be planned has failed."""
    return False, str(check["detail"])


CHECKS: Dict[str, Callable[[Check], Verdict]] = {  # noqa: UP006
    "unit": check_unit,
    "models": check_models,
    "chat": check_chat,
    "embed": check_embed,
    "score": check_score,
    "stream": check_stream,
    "metrics": check_metrics,
    "targets": check_targets,
    "runtime": check_runtime,
    "no_default_route": check_no_default_route,
    "unplanned": check_unplanned,
}


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
    """Name the devices of an instance from nvidia-smi's "index, name" lines; without a driver it is the CPU."""
    names = dict(line.split(", ", 1) for line in listed.splitlines() if ", " in line)
    if not names:
        return "cpu"
    wanted = list(gpus) or sorted(names)
    return "; ".join(f"{index} {names.get(index, 'missing')}" for index in wanted)


def _list_devices() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    argv = ["nvidia-smi", "--query-gpu=index,name", "--format=csv,noheader"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=GET_TIMEOUT_S).stdout


def check_status(check: Check) -> dict[str, Any]:
    """Return one row of the fleet table."""
    shown = _show_unit(str(check["unit"]))
    unit_ok, unit_detail = judge_unit(shown)
    runtime_ok, release = check_runtime(check)
    data: Dict[str, Any] = {  # noqa: UP006
        "instance": check["instance"],
        "device": name_device(check["gpus"], _list_devices()),
        "release": release[len("release ") :] if runtime_ok else None,
        "state": "starting" if unit_ok else unit_state(shown),
        **summarize_status("", "", 0),
        **summarize_health(_read(str(check["record"])), time.time()),
    }
    detail = unit_detail
    if unit_ok:
        try:
            started = time.monotonic()
            _, before = fetch(f"{check['url']}/metrics")
            time.sleep(SAMPLE_PAUSE_S)
            status, after = fetch(f"{check['url']}/metrics")
            if status == HTTP_OK:
                data.update(summarize_status(before, after, time.monotonic() - started), state="answering")
                detail = f"answering, {unit_detail}"
            else:
                detail = f"/metrics answers HTTP {status}"
        except (OSError, http.client.HTTPException) as error:
            detail = f"{unit_detail}, but {check['url']} does not answer: {error}"
    healthy = data["health"] in {"ready", "busy"}
    detail += "" if healthy else f"; its probe says {data['health'] or 'nothing'}"
    return {"name": check["name"], "ok": data["state"] == "answering" and healthy, "detail": detail, "data": data}


def check_rotation(check: Check) -> dict[str, Any]:
    """Return since how many seconds each instance is drained at this edge, by its label."""
    now, ages = time.time(), {}
    with contextlib.suppress(FileNotFoundError):
        for mark in Path(str(check["marks"])).iterdir():
            ages[mark.name] = round(max(0.0, now - mark.stat().st_mtime), 1)
    return {"name": check["name"], "ok": True, "detail": f"{len(ages)} drained", "data": {"drained": ages}}


def run_check(check: Check) -> dict[str, Any]:
    """Run one check; whatever goes wrong is a failed check with the reason."""
    name = str(check.get("name", "unnamed"))
    kind = str(check.get("kind", ""))
    try:
        if kind == "status":
            return check_status(check)
        if kind == "rotation":
            return check_rotation(check)
        if kind not in CHECKS:
            return {"name": name, "ok": False, "detail": f"no such kind of check: {kind!r}"}
        ok, detail = CHECKS[kind](check)
    except (OSError, ValueError, KeyError, http.client.HTTPException, subprocess.SubprocessError) as error:
        where = f"{check['url']}: " if "url" in check else ""
        ok, detail = False, f"{where}{type(error).__name__}: {error}"
    return {"name": name, "ok": bool(ok), "detail": detail}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "checks": {"type": "list", "elements": "dict", "required": True},
            "facts": {"type": "dict", "default": {}},
            "strict": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    checks = [run_check(check) for check in module.params["checks"]]
    result = {"changed": False, "checks": checks, "facts": module.params["facts"]}
    failed = [f"{check['name']}: {check['detail']}" for check in checks if not check["ok"]]
    if failed and module.params["strict"]:
        module.fail_json(msg="; ".join(failed), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
