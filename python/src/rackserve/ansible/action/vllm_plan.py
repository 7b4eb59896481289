"""Make the plan of a vLLM host: every file of its instances, which units run, are restarted or removed.

The task's options: `instances`, `options` (as `rackserve.vllm.HostOptions`), `bundle` (what bundle_manifest returned),
and what was read on the host: `gpus`, `adapters` and `written`, the paths of earlier runs.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from rackserve import bundle, gpu, vllm
from rackserve._schema import plain
from rackserve.errors import RackserveError


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; nothing is asked of the host."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the fields of `rackserve.vllm.HostPlan`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked = plain(self._task.args)
        host = (task_vars or {}).get("inventory_hostname", "the host")
        try:
            plan = vllm.host_plan(
                asked["instances"],
                vllm.HostOptions.model_validate(asked["options"]),
                bundle.parse_manifest(asked["bundle"]["text"].encode()),
                Path(asked["bundle"]["path"]),
                vllm.HostState(
                    gpus=[gpu.Gpu.model_validate(one) for one in asked["gpus"]],
                    adapters=asked["adapters"],
                    written=asked["written"],
                ),
            )
        except RackserveError as refused:
            return {**result, "failed": True, "msg": f"{host}, nothing was changed: {refused}"}
        notes = [f"{host}: {note}" for note in plan.notes]
        return {**result, "changed": False, **asdict(plan), "notes": notes, "warnings": notes}
