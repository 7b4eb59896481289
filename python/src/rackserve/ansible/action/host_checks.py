"""Decides what one host is to check, has the module `host_checks` check it there, and adds what the controller knows.

The task's options: `plan` (verify or status), `inputs` (of the roles on this host, see `rackserve.checks.Inputs`) and
`strict` (of the module). The result has the module's `checks`, and `facts`, which never leave the controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.plugins.action import ActionBase

from rackserve import checks
from rackserve._schema import plain
from rackserve.errors import RackserveError

if TYPE_CHECKING:
    from collections.abc import Callable

PLANS: dict[str, Callable[[checks.Site], list[dict[str, Any]]]] = {
    "verify": checks.host_checks,
    "status": checks.status_checks,
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; the host's side is the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `checks` and `facts`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked, known = self._task.args, task_vars or {}
        host = str(known["inventory_hostname"])
        inputs = checks.Inputs(**plain(asked["inputs"]))
        site = checks.Site(host, inputs, known["hostvars"], plain(known["groups"]))
        try:
            arguments = {"checks": PLANS[asked["plan"]](site), "strict": asked.get("strict", True)}
            facts = checks.host_facts(site)
        except RackserveError as refused:
            return {**result, "failed": True, "msg": str(refused)}
        found = self._execute_module("host_checks", module_args=arguments, task_vars=task_vars)
        return {**result, **found, "facts": facts}
