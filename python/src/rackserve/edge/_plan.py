"""Plans the edge's configuration: groups of servers for nginx, and one table for its Lua code."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from rackserve.edge._affinity import parse_affinity
from rackserve.edge._backend import parse_backends
from rackserve.edge._clients import parse_clients
from rackserve.edge._limits import parse_hold, parse_limits
from rackserve.edge._local_users import engine_matches
from rackserve.edge._paths import parse_optional, paths_of, refuse_mixed_tasks
from rackserve.vllm import known_paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.edge._backend import Backend
    from rackserve.edge._clients import Client, Key


def plan_of(
    backends: Sequence[dict[str, Any]],
    clients: Sequence[dict[str, Any]],
    optional_paths: Sequence[str] = (),
    affinity: Mapping[str, Any] | None = None,
    *,
    limits: Mapping[str, Any] | None = None,
    hold: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the data of the edge's configuration.

    Instances that serve exactly the same names share a group wherever those names lead to the same instances. Which of
    them are in rotation is not known here: the module edge_rotation writes nginx's upstreams from the table and the
    state of each edge. `optional_paths` are those of the API's optional paths that clients may ask for; `affinity`,
    `limits` and `hold` are as `parse_affinity`, `parse_limits` and `parse_hold` take them.

    Returns:
        `paths` for nginx; `table`, JSON text for the Lua code and for edge_rotation, with `groups` (models, servers,
        affine) and `servers` (address, upstream) by name and label; `digest`; `engine_matches` for nftables.

    Raises:
        InputError: a wrong backend, client, path, affinity or limit.
    """
    parsed = parse_backends(backends)
    optional, rule = parse_optional(optional_paths), parse_affinity(affinity or {})
    by_model: dict[str, list[Backend]] = {}
    for backend in parsed:
        for name in dict.fromkeys(backend.served_names):
            by_model.setdefault(name, []).append(backend)
    refuse_mixed_tasks(by_model)
    paths = {name: paths_of(members, optional) for name, members in by_model.items()}
    models = {name: _group_name(members) for name, members in by_model.items()}
    payload = _table(_models(by_model, models, paths), parse_clients(clients, sorted(models)))
    payload["limits"], payload["hold"] = parse_limits(limits or {}), parse_hold(hold or {})
    if rule:
        payload["affinity"] = rule
    payload["groups"] = {
        group: {
            "models": sorted(name for name, of in models.items() if of == group),
            "servers": [member.label for member in members],
            "affine": rule is not None and _can_choose(members),
        }
        for group, members in ((models[name], members) for name, members in by_model.items())
    }
    payload["servers"] = {b.label: {"address": f"{b.address}:{b.port}", "upstream": _upstream_name(b)} for b in parsed}
    table = json.dumps(payload, indent=1, sort_keys=True)
    offered = [path for path in known_paths() if any(path in of_model for of_model in paths.values())]
    digest = hashlib.sha256(json.dumps([offered, table]).encode()).hexdigest()[:16]
    return {"paths": offered, "table": table, "digest": digest, "engine_matches": engine_matches(parsed)}


def _group_name(members: Sequence[Backend]) -> str:
    labels = "\n".join(sorted(member.label for member in members))
    return f"group_{hashlib.sha256(labels.encode()).hexdigest()[:12]}"


def _upstream_name(backend: Backend) -> str:
    """Return the name of the upstream that has one instance alone; another address is another one."""
    place = f"{backend.label}\n{backend.address}:{backend.port}"
    return f"server_{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def _can_choose(members: Sequence[Backend]) -> bool:
    """Return whether affinity matters: several instances may answer, and they cache prompts."""
    return members[0].task == "generate" and len(members) > 1


def _models(
    by_model: Mapping[str, Sequence[Backend]], models: Mapping[str, str], paths: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    def entry(name: str, members: Sequence[Backend]) -> dict[str, Any]:
        adapters = any(member.adapters for member in members) or None
        shortest = _shortest(members)
        served = {"group": models[name], "task": members[0].task, "paths": paths[name]}
        return _set({**served, "max_model_len": shortest, "adapters": adapters})

    return {name: entry(name, members) for name, members in by_model.items()}


def _table(models: dict[str, Any], clients: Sequence[Client]) -> dict[str, Any]:
    return {
        "clients": {client.name: _limits(client) for client in clients},
        "keys": {key.sha256: _bounds(client, key) for client in clients for key in client.keys},
        "models": models,
    }


def _bounds(client: Client, key: Key) -> dict[str, Any]:
    expires = int(key.expires.timestamp()) if key.expires else None
    return _set({"client": client.name, "expires": expires, "revoked": key.revoked})


def _limits(client: Client) -> dict[str, Any]:
    limits = {
        "seconds_per_request": 60 / client.requests_per_minute,
        "burst": client.burst,
        "concurrent": client.concurrent,
        "models": client.models,
        "certificates": client.certificates,
        "suspended": client.suspended,
    }
    return _set(limits)


def _set(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out unset values: Lua reads JSON's null as a value."""
    return {key: value for key, value in values.items() if value is not None}


def _shortest(members: Sequence[Backend]) -> int | None:
    return min((b.max_model_len for b in members if b.max_model_len is not None), default=None)
