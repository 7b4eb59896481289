#!/usr/bin/python
"""Wait until an instance has generated a token under the name it should serve."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_ready
short_description: Wait until a vLLM instance generates
description:
  - Asks for one token until it comes. C(/health) is not asked, because it answers 200 on a hung engine. Gives up when
    the unit has failed for good or the time is over, and then shows the unit's last journal lines. A unit that waits
    for its turn to start has not failed.
options:
  url: {description: "Base address, such as http://10.0.0.1:8000.", type: str, required: true}
  model: {description: Served name., type: str, required: true}
  unit: {description: Unit of the instance., type: str, required: true}
  task:
    description: What the instance is for; one that does not generate is asked for a vector or a score.
    type: str
    default: generate
    choices: [generate, embed, score]
  timeout: {description: Seconds to wait., type: int, default: 600}
author: rackserve
"""
EXAMPLES = r"""
- name: Wait for a token
  vllm_ready: {url: "http://10.0.0.1:8000", model: smollm2, unit: vllm@a.service}
"""
RETURN = r"""
seconds: {description: How long it took., type: float, returned: success}
"""

import http.client
import json
import time
import urllib.error
import urllib.request

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_host import properties_in, run, tail

_PAUSE = 1.0
_REQUEST_TIMEOUT = 60


_ASKED: dict[str, tuple[str, dict[str, object]]] = {
    "generate": ("/v1/completions", {"prompt": "Hello", "max_tokens": 1, "temperature": 0}),
    "embed": ("/v1/embeddings", {"input": "Hello"}),
    "score": ("/v1/score", {"text_1": "Hello", "text_2": "Hello"}),
}


def one_token(url: str, model: str, task: str = "generate") -> str:
    """Ask for one token, vector or score; return an empty string when it came, else what happened instead."""
    path, asked = _ASKED[task]
    body = json.dumps({"model": model, **asked}).encode()
    request = urllib.request.Request(  # noqa: S310 - the address is the instance's own
        f"{url}{path}", data=body, headers={"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_REQUEST_TIMEOUT) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as refused:
        return f"HTTP {refused.code}: {tail(refused.read().decode(errors='replace'), 3)}"
    except (OSError, http.client.HTTPException, ValueError) as failed:
        return str(failed)
    usage = found.get("usage") or {}
    if task == "generate":
        return "" if usage.get("completion_tokens") == 1 else f"no token in the answer: usage is {usage}"
    return "" if found.get("data") else f"no data in the answer: {tail(json.dumps(found), 3)}"


def unit_state(shown: str) -> tuple[str, bool]:
    """Return the state of a unit, from `systemctl show`, and whether it is down with no start queued."""
    values = properties_in(shown)
    state = values.get("ActiveState", "unknown")
    return state, state in {"failed", "inactive"} and values.get("Job", "0") in {"", "0"}


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            **dict.fromkeys(("url", "model", "unit"), text),
            "task": {"type": "str", "default": "generate", "choices": list(_ASKED)},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    params = module.params
    started = time.monotonic()
    while True:
        problem = one_token(params["url"], params["model"], params["task"])
        seconds = time.monotonic() - started
        if not problem:
            module.exit_json(changed=False, seconds=round(seconds, 1))
        shown = run(["systemctl", "show", params["unit"], "--property=ActiveState,Job"])[1]
        state, ended = unit_state(shown)
        if seconds > params["timeout"] or ended:
            journal = run(["journalctl", "--no-pager", "--output=cat", "--lines=40", f"--unit={params['unit']}"])[1]
            module.fail_json(
                msg=f"{params['unit']} is {state} and has generated no token of {params['model']!r} after "
                f"{seconds:.0f} s ({problem}). Its last lines:\n{tail(journal, 25)}"
            )
        time.sleep(_PAUSE)


if __name__ == "__main__":
    main()
