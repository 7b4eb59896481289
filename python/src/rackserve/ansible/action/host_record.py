"""Record what a run left on a host, or compare the host with its record.

The task's options are those of the module, without `owned`: what the roles own on this host is read from their
`vars/owned.yml`, with the variables of this task. `accept.seen` has `HOST: sentence` of any host.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

from rackserve import drift
from rackserve._paths import project_root
from rackserve._schema import plain
from rackserve.errors import RackserveError


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; the host's side is the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module returns."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked, known = plain(self._task.args), task_vars or {}
        if asked["mode"] == "write":
            try:
                asked["owned"] = drift.owned_by_roles(
                    project_root() / "roles", plain(known["group_names"]), self._fill, asked.get("only", [])
                )
            except RackserveError as refused:
                return {**result, "failed": True, "msg": str(refused)}
        host = str(known.get("inventory_hostname", "this host"))
        if accept := asked.get("accept"):
            own = f"{host}: "
            accept["seen"] = [text.removeprefix(own) for text in accept["seen"] if text.startswith(own)]
        found = self._execute_module("host_record", module_args=asked, task_vars=task_vars)
        notes = [f"{host}: {text}" for text in found.get("left", [])]
        if notes:
            found = {**found, "notes": notes, "warnings": [*found.get("warnings", []), *notes]}
        return {**result, **found}

    def _fill(self, value: Any) -> Any:  # noqa: ANN401 - YAML
        """Return a value without Jinja expressions."""
        if isinstance(value, dict):
            return {str(self._fill(key)): self._fill(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._fill(one) for one in value]
        if isinstance(value, str) and "{{" in value:
            return plain(self._templar.template(trust_as_template(value)))
        return value
