#!/usr/bin/python
# Apache License 2.0 (see LICENSE)
"""Ansible module: asks one engine what the gates of a rollout compare, and judges it. Python 3.9 or newer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_gates
short_description: Measure the engine that serves, and judge the one that replaces it
description:
  - Asks one engine over its socket or address; C(rackserve_gates) says what the answers mean. Never changes the host,
    and sends nothing in check mode. docs/reference/gates.md describes every gate.
options:
  mode:
    description: C(measure) the engine that serves, or C(judge) the new one.
    type: str
    choices: [measure, judge]
    required: true
  engine: {description: "The engine's socket, or host:port.", type: str, required: true}
  instance: {description: "Label of the instance in every line, such as C(gpu1:chat).", type: str, required: true}
  model: {description: First served name., type: str, required: true}
  task: {description: What the instance is for., type: str, default: generate, choices: [generate, embed, score]}
  adapters: {description: Whether it serves LoRA adapters., type: bool, default: false}
  tool_parser: {description: Its parser of tool calls; empty where tool calls are off., type: str, default: ""}
  identity:
    description: What model, revision, types and GPUs it has, as rackserve.vllm.golden_identity writes it.
    type: str
    required: true
  template: {description: What names its chat template; empty for the model's own., type: str, default: ""}
  before: {description: C(measured) of the engine before; empty where there is none., type: dict, default: {}}
  speed:
    description: When to judge the speed, with the other gates, without them, or not at all.
    type: str
    choices: [with, alone, without]
    default: with
  cases: {description: "The site's cases for it, as rackserve.vllm.gate_cases_of returns them.", type: list,
    elements: dict, default: []}
  slower_percent: {description: How much slower it may be., type: float, default: 20}
  requests: {description: Short requests of the gate C(errors)., type: int, default: 230}
  golden_tolerance: {description: Largest difference of a log-probability., type: float, default: 0.3}
  timeout: {description: Seconds that one request may take., type: float, default: 60}
  seconds: {description: Seconds after which a measurement asks for nothing more., type: float, default: 120}
  strict: {description: Fail the task when a gate fails. The gates are returned either way., type: bool, default: true}
author: The rackserve authors
"""

EXAMPLES = r"""
- name: Measure the engine that serves
  vllm_gates:
    mode: measure
    engine: /etc/vllm/instances/chat/current/engine.sock
    instance: gpu1:chat
    model: smollm2
    identity: model=HuggingFaceTB/SmolLM2-135M-Instruct@5cc27a1063673555cf666d310abaf946df865211 vllm=0.32.0+cpu
  register: __vllm_before
"""

RETURN = r"""
measured: {description: "Plain data for C(before).", returned: with mode measure, type: dict}
gates: {description: "Each: name, ok (null: not compared), line, figures.", returned: with mode judge, type: list}
lines: {description: The line of every gate., returned: with mode judge, type: list}
rackserve_record: {description: The gates for the record of the run., returned: with mode judge, type: list}
"""

from typing import Any, Dict, List, Mapping  # noqa: UP035 - Python 3.9 runs this

from ansible.module_utils import rackserve_gate_asks as asks
from ansible.module_utils import rackserve_gates as gates
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_gate_cases import judge_cases
from ansible.module_utils.rackserve_gate_chats import judge_template, judge_tools
from ansible.module_utils.vllm_probe import Settings

NAMES = ("token", "golden", "cases", "tools", "template", "errors", "speed")
# A difference in speed counts when it is there every time.
SPEED_LOOKS = 3


def engine_of(params: Mapping[str, Any]) -> asks.Engine:
    """Return the engine that the module's options name."""
    settings = Settings(
        engine=params["engine"],
        model=params["model"],
        steps=(),
        task=params["task"],
        adapters=params["adapters"],
        golden_tolerance=params["golden_tolerance"],
    )
    return asks.Engine(settings, params["timeout"])


def measure(params: Mapping[str, Any]) -> Dict[str, Any]:  # noqa: UP006
    """Return what is known of the engine that serves; without `token` it gives none, and nothing can be compared."""
    engine = engine_of(params)
    came, detail, _ = asks.token(engine)
    known = {key: params[key] for key in ("identity", "template", "task", "tool_parser")}
    if not came:
        return {**known, "token": False, "detail": detail}
    generates = params["task"] == "generate"
    answers = asks.speed(engine, asks.ANSWERS_BEFORE, params["seconds"])
    return {
        **known,
        "token": True,
        "detail": detail,
        "golden": asks.golden_before(engine),
        "tools": asks.tools(engine, params["tool_parser"]) if generates and params["tool_parser"] else {},
        "chat": asks.template(engine) if generates else None,
        "speed": gates.speed_of(answers),
        "requests": engine.sent,
        "failed": engine.failed,
    }


def judge(params: Mapping[str, Any]) -> List[gates.Gate]:  # noqa: UP006
    """Return every gate of a new engine; one that gives no token is asked for nothing else."""
    engine, label = engine_of(params), params["instance"]
    before = params["before"] if params["before"].get("token") else {}
    came, detail, seconds = asks.token(engine)
    found = [gates.judge_token(label, detail, seconds, came=came)]
    if not came:
        return found + [gates.gate(name, label, None, "not compared: the engine gives no token") for name in NAMES[1:]]
    changed = gates.changed_parts(before.get("identity", ""), params["identity"])
    if params["speed"] == "alone":
        return [judge_speed(engine, label, before, params)]
    found.append(golden(engine, label, before, changed, params["golden_tolerance"]))
    problems, asked = asks.cases(engine, params["cases"])
    found.append(judge_cases(label, problems, asked))
    chats = params["task"] == "generate"
    if chats:
        found += [tools(engine, label, before, params["tool_parser"]), template(engine, label, before, changed, params)]
    else:
        text = "not compared: a model that does not generate has none"
        found += [gates.gate(name, label, None, text) for name in ("tools", "template")]
    takes_chat = chats and found[-1]["figures"].get("answers", 0) > 0
    asks.many(engine, params["requests"], params["seconds"], chat=takes_chat)
    speed = [judge_speed(engine, label, before, params)] if params["speed"] == "with" else []
    # After it, because its requests count as well.
    return [*found, gates.judge_errors(label, engine.sent, engine.failed), *speed]


def golden(
    engine: asks.Engine,
    label: str,
    before: Mapping[str, Any],
    changed: List[str],  # noqa: UP006
    tolerance: float,
) -> gates.Gate:
    """Ask for the golden answer until it is that of before, a few times."""
    answers: List[Dict[str, Any]] = []  # noqa: UP006
    for _ in range(asks.TRIES):
        answer = asks.golden(engine)
        answers += [answer] if answer else []
        found = gates.judge_golden(label, before.get("golden"), answers, changed, tolerance)
        if found["ok"] is not False:
            break
    return found


def tools(engine: asks.Engine, label: str, before: Mapping[str, Any], parser: str) -> gates.Gate:
    """Compare tool calls; those of another parser say nothing of this one."""
    was = before.get("tools") if before.get("tool_parser") == parser else None
    return judge_tools(label, parser, was, asks.tools(engine, parser) if parser else {})


def template(
    engine: asks.Engine,
    label: str,
    before: Mapping[str, Any],
    changed: List[str],  # noqa: UP006
    params: Mapping[str, Any],
) -> gates.Gate:
    """Compare the chat template; another model has another one."""
    same_model = bool(before) and "model" not in changed
    was = before.get("chat") if same_model else None
    same = same_model and before["template"] == params["template"]
    return judge_template(label, was, asks.template(engine), same_template=same)


def judge_speed(engine: asks.Engine, label: str, before: Mapping[str, Any], params: Mapping[str, Any]) -> gates.Gate:
    """Measure until the engine is not slower, a few times."""
    was = before.get("speed") if before.get("task") == params["task"] else None
    best: gates.Gate = {}
    answers: List[Dict[str, float]] = []  # noqa: UP006
    for _ in range(SPEED_LOOKS):
        answers += asks.speed(engine, asks.ANSWERS, params["seconds"])
        now = gates.speed_of(answers)
        best = gates.judge_speed(label, was, now, params["slower_percent"])
        if best["ok"] is not False:
            break
    return best


def main() -> None:
    """Run the module."""
    text, number = {"type": "str", "required": True}, {"type": "float"}
    module = AnsibleModule(
        argument_spec={
            "mode": {**text, "choices": ["measure", "judge"]},
            **dict.fromkeys(("engine", "instance", "model", "identity"), text),
            "task": {"type": "str", "default": "generate", "choices": ["generate", "embed", "score"]},
            "adapters": {"type": "bool", "default": False},
            "tool_parser": {"type": "str", "default": ""},
            "template": {"type": "str", "default": ""},
            "before": {"type": "dict", "default": {}},
            "speed": {"type": "str", "default": "with", "choices": ["with", "alone", "without"]},
            "cases": {"type": "list", "elements": "dict", "default": []},
            "slower_percent": {**number, "default": 20.0},
            "requests": {"type": "int", "default": 230},
            "golden_tolerance": {**number, "default": 0.3},
            "timeout": {**number, "default": 60.0},
            "seconds": {**number, "default": 120.0},
            "strict": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, measured={}, gates=[], lines=[])
    if params["mode"] == "measure":
        module.exit_json(changed=False, measured=measure(params))
    found = judge(params)
    records = gates.records_of(params["instance"].partition(":")[2], found)
    result = {"changed": False, "gates": found, "lines": [one["line"] for one in found], "rackserve_record": records}
    failed = [one["line"] for one in found if one["ok"] is False]
    if failed and params["strict"]:
        module.fail_json(msg="; ".join(failed), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
