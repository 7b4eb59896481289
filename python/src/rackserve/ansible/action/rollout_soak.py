"""Judge what edges and Prometheus saw of a host's instances under a share of real requests.

The task's options: `instances` (of vllm_plan), `most_percent`, and results of the module edge_soak in loops over edges
and monitoring hosts: `calm` (before the change), `before` and `after` (the soak). Fails when a gate fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.plugins.action import ActionBase

from rackserve._schema import plain
from rackserve.ansible.module_utils.rackserve_gates import records_of
from rackserve.ansible.module_utils.rackserve_soak import soak_gates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def rows_of(results: Sequence[Mapping[str, Any]], calm: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return what each host told, by its name; with the alerts of `calm` in place of its own."""
    rows = [{**result, "host": result["__rollout_item"]} for result in results if "counts" in result]
    return [{**row, "alerts": calm.get(row["host"], row["alerts"])} for row in rows] if calm is not None else rows


def peers_of(label: str, names: Sequence[str], plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the labels of the other instances that serve one of some names.

    Args:
        label: the instance's.
        names: those that it serves.
        plans: what vllm_plan returned, by host.
    """
    labels = [
        f"{host}:{one['name']}"
        for host, plan in plans.items()
        for one in plan.get("instances", [])
        if set(one["served_names"]) & set(names)
    ]
    return [other for other in labels if other != label]


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; nothing is asked of the host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `gates`, and `rackserve_record`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked, known = plain(self._task.args), task_vars or {}
        host = str(known["inventory_hostname"])
        hostvars = known["hostvars"]
        plans = {name: plain(hostvars[name].get("__vllm_plan") or {}) for name in known["groups"].get("vllm_hosts", [])}
        address = str(hostvars[host].get("ansible_host") or host)
        calm = {row["host"]: row["alerts"] for row in rows_of(asked["calm"])}
        gates, records = [], []
        for one in asked["instances"]:
            label = f"{host}:{one['name']}"
            soak = {
                "instance": label,
                "label": label,
                "peers": peers_of(label, one["served_names"], plans),
                "most_percent": float(asked["most_percent"]),
                "names": [host, address, label, one["name"]],
            }
            found = soak_gates(soak, rows_of(asked["before"], calm), rows_of(asked["after"]))
            gates += found
            records += records_of(one["name"], found)
        failed = "; ".join(gate["line"] for gate in gates if gate["ok"] is False)
        result |= {"changed": False, "gates": gates, "rackserve_record": records}
        return {**result, "failed": True, "msg": failed} if failed else result
