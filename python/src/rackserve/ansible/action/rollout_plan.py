"""Make the plan of a rollout: which hosts are changed when, and whether a request would be lost.

The task's options are the fields of `rackserve.rollout.RolloutInput`, and `kind`, that of the record. A plan that loses
requests fails the task, with all problems in one message, unless `consent` has a reason. The plan is returned in either
case, and once more as `rackserve_record`, for the record of the run.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ansible.plugins.action import ActionBase

from rackserve import rollout
from rackserve._schema import plain
from rackserve.errors import RackserveError


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; nothing is asked of a host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the fields of `rackserve.rollout.RolloutPlan`, and its `batches`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked = plain(self._task.args)
        kind = asked.pop("kind", "plan")
        try:
            plan = rollout.rollout_plan(rollout.parse_input(asked))
        except RackserveError as wrong:
            return {**result, "failed": True, "msg": f"nothing was changed: {wrong}"}
        found = json.loads(json.dumps({**asdict(plan), "batches": plan.batches}))  # enums as texts
        result |= {**found, "changed": False, "rackserve_record": {"kind": kind, **found}}
        return {**result, "failed": True, "msg": plan.refusal} if plan.refused else result
