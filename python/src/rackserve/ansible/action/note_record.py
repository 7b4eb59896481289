"""Put something into the record of the run, and show it to who watches: the batch of a rollout, its pause, a return.

The task's option is `record`, a mapping with `kind`.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from rackserve._schema import plain


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller and never connects to the host."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"record"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the record under the key that the callback of records reads."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        return {**result, "changed": False, "rackserve_record": plain(self._task.args["record"])}
