"""The options of the module vllm_gates: for the engine that serves, and for the one that replaces it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackserve import vllm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def gates_before(
    found: Mapping[str, Any], plan: Mapping[str, Any], host: str, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the options that measure the engines which serve.

    An instance whose engine is down has none, nor one whose live generation is the wanted one: that of a run that died.

    Args:
        found: what generation_facts returned.
        plan: what vllm_plan returned.
        host: the host's name.
        names: instances that change.
    """
    wanted = {one["name"]: one for one in plan["instances"]}
    serving = {name: found["instances"][name] for name in names if name in found["instances"]}
    return [
        {"mode": "measure", **_engine(host, one["generation"], wanted[name]["url"])}
        for name, one in serving.items()
        if one["active"] and one["generation"] and name in wanted and one["live"] != wanted[name]["digest"]
    ]


def gates_after(
    plan: Mapping[str, Any],
    host: str,
    names: Sequence[str],
    measured: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the options that judge new engines against what was measured.

    Args:
        plan: what vllm_plan returned.
        host: the host's name.
        names: instances that change.
        measured: results of the measurements.
        settings: `cases`, `instances` (both as the inventory has them) and `site` (its folder); the others are options
            of the module.

    Raises:
        InputError: for a wrong case.
    """
    before = {result["__rollout_item"]["instance"]: result["measured"] for result in measured if "measured" in result}
    site = Path(settings["site"])
    limits = {key: value for key, value in settings.items() if key not in {"cases", "instances", "site"}}
    wanted = [one for one in plan["instances"] if one["name"] in names]
    return [
        {
            "mode": "judge",
            **_engine(host, one, one["url"]),
            "before": before.get(f"{host}:{one['name']}", {}),
            "cases": vllm.gate_cases_of(settings["cases"], settings["instances"], one["name"], site)
            if settings["cases"]
            else [],
            **limits,
        }
        for one in wanted
    ]


def _engine(host: str, generation: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return where an engine is asked, and what it is; without a socket it is asked through its entry."""
    engine, config = str(generation["engine"]), generation.get("config") or {}
    return {
        "engine": engine if engine.startswith("/") else url.removeprefix("http://"),
        "instance": f"{host}:{generation['name']}",
        "model": generation["served_names"][0],
        "task": generation["task"],
        "adapters": bool(config.get("enable-lora")),
        "tool_parser": config.get("tool-call-parser") or "",
        "identity": str(generation.get("identity", "")),
        "template": config.get("chat-template") or "",
    }


def generations_before(found: Mapping[str, Any], names: Sequence[str], plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what served before a change, to be made live again; an instance that is new has nothing.

    Where the live generation is the wanted one, a run that died had switched to it: the one before it is meant.
    `previous` is the generation that a later rollback goes to; never the one that is returned from.

    Args:
        found: what generation_facts returned before the change.
        names: instances that changed.
        plan: what vllm_plan returned.
    """
    urls = {one["name"]: one["url"] for one in plan["instances"]}
    wanted = {one["name"]: one["digest"] for one in plan["instances"]}
    back = []
    for name in names:
        there = found["instances"].get(name) or {}
        switched = there.get("live") == wanted.get(name)
        generation = there.get("before" if switched else "generation")
        if generation:
            known = {key: generation[key] for key in ("name", "digest", "unit", "task")}
            known["previous"] = "" if switched else there["previous"]
            back.append({**known, "model": generation["served_names"][0], "url": urls.get(name, "")})
    return back


def previous_plan(
    found: Mapping[str, Any],
    host: str,
    only_from: Mapping[str, str],
    returns: bool = True,  # noqa: FBT001, FBT002 - a filter
) -> dict[str, Any]:
    """Return a plan, as vllm_plan returns it, that makes the generation before of every instance live.

    Args:
        found: what generation_facts returned.
        host: the host's name.
        only_from: digest by label; where it is not empty, only an instance whose live generation it names returns.
        returns: whether the host is to return at all; else its plan is what it serves.
    """
    back = {
        name: there["before"]
        for name, there in found["instances"].items()
        if returns
        and there["before"]
        and only_from.get(f"{host}:{name}", "" if only_from else there["live"]) == there["live"]
    }
    chosen = {name: back.get(name, there["generation"]) for name, there in found["instances"].items()}
    return {"instances": [_as_planned(one, found) for one in chosen.values() if one], "removed": [], "read_by": {}}


def _as_planned(generation: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    name = generation["name"]
    digests = {key: generation[key] for key in ("environment", "probe", "settings")}
    return {
        **generation,
        "digests": digests,
        "environment": generation["visible"],
        "model": generation["served_names"][0],
        "listener": vllm.listener_of(name),
        "timer": vllm.timer_of(name),
        "url": f"http://{found['instances'][name]['listens']}",
    }
