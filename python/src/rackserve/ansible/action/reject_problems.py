"""Fail with a message where a host or its inputs have problems; a task that does so computes them once.

The task's options: `problems` (a list, or one text; empty for none) and `msg`, in which `{problems}` stands for them.
`problems` may be a mapping of `problems` and `notes`: notes fail nothing, are Ansible's warnings, and are
returned as `notes`, which `rackserve apply` shows.
An `assert` evaluates a variable anew for each place that names it, in `that` and in `fail_msg`, even when it passes.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller and never connects to the host."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"problems", "msg"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `failed` and the message, or no change."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        problems = self._task.args["problems"]
        if isinstance(problems, dict):
            host = (task_vars or {}).get("inventory_hostname", "this host")
            result["notes"] = [f"{host}: {note}" for note in problems.get("notes", [])]
            result["warnings"] = result["notes"]
            problems = problems["problems"]
        text = problems if isinstance(problems, str) else "; ".join(map(str, problems))
        if not text:
            return {**result, "changed": False}
        msg = str(self._task.args.get("msg", "{problems}")).replace("{problems}", text)
        return {**result, "failed": True, "msg": msg}
