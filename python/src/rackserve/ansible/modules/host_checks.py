# Apache License 2.0 (see LICENSE)
"""Ansible module: looks at its host and reports; `rackserve_judges` says what each finding means.

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
"""

import contextlib
import datetime as dt
import http.client
import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional  # noqa: UP035 - Python 3.9 runs this

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_generations import live_unit
from ansible.module_utils.rackserve_judges import (
    FIRST_SCRAPE_S,
    HTTP_OK,
    Check,
    Verdict,
    chat_request,
    find_default_routes,
    judge_chat,
    judge_data,
    judge_metrics,
    judge_models,
    judge_stream,
    judge_targets,
    judge_unit,
    name_device,
    summarize_health,
    summarize_status,
    unit_state,
)
from ansible.module_utils.rackserve_rotation import deciding, parse_marks, seconds_since

GET_TIMEOUT_S = 10.0
CHAT_TIMEOUT_S = 120.0
SAMPLE_PAUSE_S = 1.0
# A site's proxy has no business between a host and its own ports.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


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


def _unit_of(check: Check) -> str:
    """Return the unit of a check: its own, or that of an instance's live engine."""
    return str(check["unit"]) if "unit" in check else live_unit(str(check["instance"]))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""  # a kernel without IPv6 has no such file, nor has a host without a probe


def check_unit(check: Check) -> Verdict:
    """The unit is loaded and active."""
    return judge_unit(_show_unit(_unit_of(check)))


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


def _list_devices() -> str:
    argv = ["nvidia-smi", "--query-gpu=index,name,uuid,pci.bus_id", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", check=False, timeout=GET_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # a driver that does not come back costs the name of the device, not the row
    return done.stdout


def check_status(check: Check) -> dict[str, Any]:
    """Return one row of the fleet table."""
    shown = _show_unit(_unit_of(check))
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
    """Return what each instance that is out of rotation, or has a share, gets at this edge; who decided, since when."""
    text, path = "", str(check["state"])
    with contextlib.suppress(FileNotFoundError):
        text = Path(path).read_text(encoding="utf-8")
    now = dt.datetime.now(dt.timezone.utc)  # noqa: UP017 - Python 3.9 runs this
    marks = {
        label: {**{key: mark[key] for key in ("weight", "by", "run")}, "seconds": seconds_since(mark["since"], now)}
        for label, mark in deciding(parse_marks(text, path)).items()
    }
    return {"name": check["name"], "ok": True, "detail": f"{len(marks)} not in full rotation", "data": {"marks": marks}}


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
            "strict": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    checks = [run_check(check) for check in module.params["checks"]]
    result = {"changed": False, "checks": checks}
    failed = [f"{check['name']}: {check['detail']}" for check in checks if not check["ok"]]
    if failed and module.params["strict"]:
        module.fail_json(msg="; ".join(failed), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
