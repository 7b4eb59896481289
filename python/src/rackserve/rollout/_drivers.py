"""From what was read of every host to the plan of another driver: hosts that serve leave the rotation for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.rollout._gates import previous_plan
from rackserve.rollout._observe import hosts_of, instances_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Begins the ID of a run that changes drivers: it gives back what such a run left, and leaves a rollout's marks alone.
DRIVER_RUN: Final = "driver-"


def driver_hosts(
    hostvars: Mapping[str, Mapping[str, Any]],
    hosts: Sequence[str],
    selected: Sequence[str],
    reached: Sequence[str],
    edges: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the hosts of `rackserve.rollout.RolloutInput` for a change of their drivers.

    Every instance is to serve afterwards what it serves now. One that does not serve is none, except for those that a
    run which died has left.

    Args:
        hostvars: variables by host; `__nvidia_driver_change` (see preflight.driver_change) and `__rollout_found` (of
            generation_facts) are read.
        hosts: every vLLM host, in the inventory's order.
        selected: those of this run's limit.
        reached: those that were read.
        edges: what edge_rotation read, by edge.
    """
    told = {edge: {**state, "after": list(_marks(state))} for edge, state in edges.items()}
    instances = {host: list(_instances(host, hostvars[host], told)) for host in hosts if host in reached}
    return hosts_of(hosts, selected, instances, told)


def driver_labels(plan: Mapping[str, Any], host: str, edges: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the labels of a host's instances: to take `out`, those that get requests, and to give `back` afterwards.

    An operator's mark stays, and so does one of a rollout: its instance is proved by the next rollout.

    Args:
        plan: the plan of the drivers.
        host: the host's name.
        edges: what edge_rotation read before the plan, by edge.
    """
    labels = [f"{host}:{row['instance']}" for row in plan["rows"] if row["host"] == host]
    theirs = {mark["label"] for state in edges.values() for mark in state.get("after", []) if _is_of_rollout(mark)}
    asked = {label for state in edges.values() for label, weight in state.get("weights", {}).items() if weight}
    return {
        "out": [label for label in labels if label in asked or label in plan["take_back"]],
        "back": [label for label in labels if label not in theirs],
    }


def _instances(host: str, own: Mapping[str, Any], edges: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    found, change = own["__rollout_found"], own.get("__nvidia_driver_change") or {}
    words = list(change.get("words", []))
    plan = previous_plan(found, host, {}, returns=False)
    for one in instances_of(host, {"__vllm_plan": plan, "__rollout_found": found}, edges, beside=False):
        left = any(at["state"] in ("rollout", "weight") for at in one["edges"].values())
        if one["live"] and (one["serves"] or left):
            start_s = one["start_s"]
            yield {
                **one,
                "wanted": f"{one['live']}, {words[0]}" if words else one["live"],
                "wanted_names": one["live_names"],
                "entry": "same",
                "changes": words,
                "start_s": start_s and start_s + (change.get("seconds", 0) if words else 0),
            }


def _marks(state: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an edge's marks: a rollout's and an operator's instances are out, whatever share of requests they get."""
    for mark in state.get("after", []):
        if _is_of_rollout(mark):
            yield {**mark, "by": "operator", "weight": 0}
        elif mark["by"] == "rollout" or not mark["weight"]:
            yield dict(mark)


def _is_of_rollout(mark: Mapping[str, Any]) -> bool:
    return mark["by"] == "rollout" and not str(mark.get("run", "")).startswith(DRIVER_RUN)
