"""From what a run has planned and read of every host to the input of a rollout's plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# A second engine of the same kind needs what the first has, and a margin for its start.
_ROOM: Final = 1.25
_SHOWN: Final = 60
# What names a generation is no change of its own.
_NAMED: Final = frozenset({"uds", "port", "host"})


def observed_hosts(
    hostvars: Mapping[str, Mapping[str, Any]],
    hosts: Sequence[str],
    selected: Sequence[str],
    reached: Sequence[str],
    edges: Mapping[str, Mapping[str, Any]],
    *,
    beside: bool,
) -> list[dict[str, Any]]:
    """Return the hosts of `rackserve.rollout.RolloutInput`.

    Args:
        hostvars: variables by host; `__vllm_plan` (of vllm_plan) and `__rollout_found` (of generation_facts) are read.
        hosts: every vLLM host, in the inventory's order.
        selected: those of this run's limit.
        reached: those that were planned and read.
        edges: what edge_rotation read, by edge.
        beside: whether a new engine may start beside the one that serves.
    """
    instances = {
        host: list(instances_of(host, hostvars[host], edges, beside=beside)) for host in hosts if host in reached
    }
    return hosts_of(hosts, selected, instances, edges)


def hosts_of(
    hosts: Sequence[str],
    selected: Sequence[str],
    instances: Mapping[str, list[dict[str, Any]]],
    edges: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return hosts with their instances; those outside the limit have what the edges know of them."""
    return [
        {
            "name": host,
            "selected": host in selected,
            "reachable": host in instances or host not in selected,
            "instances": instances.get(host, []) if host in selected else list(_outside(host, edges)),
        }
        for host in hosts
    ]


def _outside(host: str, edges: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the instances of a host that this run does not ask: they stay as they are, whatever that is."""
    served: dict[str, set[str]] = {}
    for state in edges.values():
        for label, names in state.get("names", {}).items():
            if label.rpartition(":")[0] == host:
                served.setdefault(label, set()).update(names)
    for label, names in sorted(served.items()):
        yield {
            "name": label.rpartition(":")[2],
            "live": "not asked",
            "wanted": "not asked",
            "live_names": sorted(names),
            "wanted_names": sorted(names),
            "edges": {
                edge: {**_at_edge(label, state, ""), "names": state.get("names", {}).get(label, [])}
                for edge, state in edges.items()
            },
        }


def instances_of(
    host: str, own: Mapping[str, Any], edges: Mapping[str, Mapping[str, Any]], *, beside: bool
) -> Iterator[dict[str, Any]]:
    """Yield the instances of `rackserve.rollout.HostState`; arguments as of `observed_hosts`."""
    plan, found = own["__vllm_plan"], own["__rollout_found"]
    wanted = {one["name"]: one for one in plan["instances"]}
    for name in dict.fromkeys([*wanted, *found["instances"]]):
        want, there = wanted.get(name), found["instances"].get(name, {})
        live = there.get("generation") or {}
        stale = bool(want) and (want or {}).get("unit") in found["stale"]
        label = f"{host}:{name}"
        addresses = {state["addresses"][label] for state in edges.values() if label in state.get("addresses", {})}
        moves = bool(want and live and addresses - {_place(want)})
        restarts = bool(want) and (want or {}).get("listener") in found["stale"]
        yield {
            "name": name,
            "live": f"{there.get('live')}, changed by hand" if stale else there.get("live") or None,
            "wanted": want["digest"] if want else None,
            "live_names": live.get("served_names", []),
            "wanted_names": want["served_names"] if want else [],
            "serves": bool(there.get("active")),
            "way": "beside" if beside and want and not stale and _fits(want, there, found) else "drain",
            "entry": "moves" if moves else "restarts" if restarts else "same",
            "changes": [*changed_words(live, want), *(["its files were changed by hand"] if stale else [])],
            "start_s": there.get("seconds") or None,
            # One that serves has its address compared above.
            "edges": {edge: _at_edge(label, state, "" if live else _place(want)) for edge, state in edges.items()},
        }


def _place(want: Mapping[str, Any] | None) -> str:
    return str(want["url"]).removeprefix("http://") if want else ""


def _at_edge(label: str, state: Mapping[str, Any], place: str) -> dict[str, Any]:
    if label not in state.get("weights", {}):
        return {"state": "absent"}
    reaches = not place or state.get("addresses", {}).get(label, place) == place
    return {**_mark_at(label, state), **({} if reaches else {"reaches": False})}


def _mark_at(label: str, state: Mapping[str, Any]) -> dict[str, Any]:
    marks = [mark for mark in state.get("after", []) if mark["label"] == label]
    by = {mark["by"]: mark for mark in marks}
    if "operator" in by and not by["operator"]["weight"]:
        return {"state": "operator"}
    mark = by.get("rollout") or by.get("operator")
    if mark is None:
        return {"state": "in"}
    return {"state": "weight" if mark["weight"] else "rollout", "run": mark.get("run", "")}


def _fits(want: Mapping[str, Any], there: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Return whether a second engine of an instance fits into what the host, and each of its GPUs, has left."""
    if not want["engine"].startswith("/") or not there.get("active"):
        return False
    if _ROOM * there.get("memory", 0) > found.get("available", 0):
        return False
    share = want["config"].get("gpu-memory-utilization")
    if share is None:
        return True
    free = {gpu[key]: gpu for gpu in found.get("gpus", []) for key in ("uuid", "index")}
    named = [name for name in str(want["environment"].get("CUDA_VISIBLE_DEVICES", "")).split(",") if name]
    return bool(named) and all(
        name in free and free[name]["free"] >= float(share) * free[name]["total"] for name in named
    )


def changed_words(live: Mapping[str, Any], want: Mapping[str, Any] | None) -> list[str]:
    """Return what a wanted generation changes of the live one, in words."""
    if not live or want is None:
        return []
    texts = []
    if live.get("runtime") != want["runtime"]:
        texts.append(f"vLLM {_last(live.get('runtime'))} -> {_last(want['runtime'])}")
    before, after = live.get("config", {}), want["config"]
    differing = [key for key in sorted({*before, *after} - _NAMED) if before.get(key) != after.get(key)]
    texts += [f"{key} {_short(before.get(key))} -> {_short(after.get(key))}" for key in differing]
    others = (("environment", "its environment"), ("probe", "its probe's settings"), ("settings", "its unit"))
    return texts + [what for key, what in others if key in live and live[key] != want["digests"][key]]


def _last(path: object) -> str:
    return str(path).rpartition("/")[2]


def _short(value: object) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
