#!/usr/bin/python
"""Make generations of instances live, start one beside the live one, end the one before, or remove what is not kept."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_generation
short_description: Switch the generations of a host's instances
description:
  - C(candidate) starts the engines of generations beside those that serve, and waits until each generated a token.
    Nothing reaches them but who asks their sockets.
  - C(live) makes generations live by one rename each. Where the engine of the one before runs on, it takes no new
    connection; else it is stopped first, so that its memory is free for the next one.
  - C(ended) stops every engine that is not live, after its requests have ended.
  - C(stopped) stops every engine of instances at once; a boot, or C(live), starts the live ones again.
  - C(absent) stops instances and removes all of their files but their caches.
  - C(kept) removes generations, runtimes and chat templates that no kept generation needs. The live one, the one before
    and a candidate are always kept.
options:
  state: {description: What to do., type: str, required: true, choices: [candidate, live, ended, stopped, absent, kept]}
  instances:
    description: "Instances: C(name), C(digest) of the generation, and C(previous), which a return restores."
    type: list
    elements: dict
    required: true
  overlap: {description: "Whether the engine of the generation before runs on (C(live)).", type: bool, default: false}
  restart: {description: "Whether the live engine is started anew (C(live)).", type: bool, default: false}
  settle: {description: "Seconds in which clients end their old connections (C(ended)).", type: float, default: 10}
  timeout: {description: "Seconds to wait: for a token, or for requests to end.", type: int, default: 600}
  keep: {description: "Generations of an instance that are kept, with the live one (C(kept)).", type: int, default: 3}
  runtimes: {description: "Folder of the runtimes (C(live), C(kept)).", type: str, default: ""}
  templates: {description: "Folder of the chat templates (C(kept)).", type: str, default: ""}
author: rackserve
"""
EXAMPLES = r"""
- name: Make a generation live
  vllm_generation: {state: live, instances: [{name: chat, digest: 0123456789}]}
"""
RETURN = r"""
before: {description: "Digests by instance that were live before, empty for none.", type: dict, returned: always}
removed: {description: Paths that were removed., type: list, returned: always}
seconds: {description: How long it took., type: float, returned: always}
"""

import glob
import os
import shutil
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_generations import (
    LINKS,
    UNITS,
    generations,
    instance_folder,
    instances,
    linked,
    listener_of,
    proxy_of,
    timer_of,
    unit_of,
    units_of,
)
from ansible.module_utils.rackserve_host import host_lock, run, switch_link, tail
from ansible.module_utils.vllm_probe import Settings, read_page

_GOLDEN = "/var/lib/rackserve/probe"
_RECORD = "/run/rackserve/probe"
_METRICS = "/var/lib/prometheus/node-exporter"
_PAUSE_S = 0.5
_METRICS_TIMEOUT_S = 5.0
_ENDED = {"inactive", "failed"}


class SwitchError(Exception):
    """A step failed; the message says which and why."""


def systemctl(*words: str) -> None:
    """Run systemctl.

    Raises:
        SwitchError: with its last lines.
    """
    code, out, err = run(["systemctl", *words])
    if code != 0:
        raise SwitchError(f"systemctl {' '.join(words)}: {tail(err or out, 3)}")


def property_of(unit: str, key: str) -> str:
    """Return one property of a unit."""
    return str(run(["systemctl", "show", unit, f"--property={key}", "--value"])[1]).strip()


def text_of(path: str) -> str:
    """Return what a file holds, empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read()
    except OSError:
        return ""


def complete(name: str, digest: str) -> dict[str, Any]:
    """Return what a generation says of itself.

    Raises:
        SwitchError: when it is not on the host, or not complete.
    """
    found = generations(name)
    if digest not in found:
        raise SwitchError(f"{name} has no complete generation {digest}; run the play again, which stages it")
    return dict(found[digest])


def link_dropins(name: str, digest: str) -> bool:
    """Have the drop-ins in vllm@NAME.service.d, an operator's too, count for a generation; return whether one did not.

    Each is linked: systemd follows no link to a folder of drop-ins.
    """
    shared, folder = os.path.join(UNITS, f"vllm@{name}.service.d"), os.path.join(UNITS, f"{unit_of(name, digest)}.d")
    there = sorted(file for file in os.listdir(shared) if file.endswith(".conf")) if os.path.isdir(shared) else []
    os.makedirs(folder, mode=0o755, exist_ok=True)
    changed = [switch_link(os.path.join(folder, file), f"../vllm@{name}.service.d/{file}") for file in there]
    for file in set(os.listdir(folder)).difference(there):
        if os.path.islink(os.path.join(folder, file)):
            os.unlink(os.path.join(folder, file))
            changed.append(True)
    if any(changed):
        systemctl("daemon-reload")
    return any(changed)


def start_candidate(name: str, digest: str, timeout: int) -> None:
    """Start the engine of a generation beside the live one and wait for its first token.

    Raises:
        SwitchError: when none came in time; the engine is stopped, and the live one is as it was.
    """
    complete(name, digest)
    switch_link(os.path.join(instance_folder(name), "candidate"), f"generations/{digest}")
    unit = unit_of(name, digest)
    link_dropins(name, digest)
    run(["systemctl", "reset-failed", unit])
    systemctl("start", "--no-block", unit)
    ends = time.monotonic() + timeout
    while True:
        state = property_of(unit, "ActiveState")
        if state == "active":
            return
        starting = state in {"activating", "reloading", "inactive"} and property_of(unit, "NRestarts") in {"", "0"}
        queued = property_of(unit, "Job") not in {"", "0"}
        if time.monotonic() > ends or not (starting and (state != "inactive" or queued)):
            break
        time.sleep(_PAUSE_S)
    journal = run(["journalctl", "--no-pager", "--output=cat", "--lines=40", f"--unit={unit}"])[1]
    drop_candidate(name)
    raise SwitchError(f"{unit} generated no token in {timeout} s and was stopped; its last lines:\n{tail(journal, 25)}")


def drop_candidate(name: str) -> bool:
    """Stop an engine that was started beside the live one; return whether there was one."""
    digest = linked(name, "candidate")
    if not digest:
        return False
    if digest != linked(name):
        systemctl("stop", unit_of(name, digest))
    os.unlink(os.path.join(instance_folder(name), "candidate"))
    return True


def stop_before(entries: list[dict[str, Any]], *, restart: bool) -> None:
    """Stop the engines that make room for others, all at once, since each may wait for its requests."""
    lives = [(entry["name"], entry["digest"], linked(entry["name"])) for entry in entries]
    olds = [unit_of(name, live) for name, digest, live in lives if live and (restart or live != digest)]
    if olds:
        systemctl("stop", *olds)


def follow_runtime(runtimes: str, entry: dict[str, Any]) -> bool:
    """Point `current` of the runtimes, which people use, at the one that the last instance runs."""
    runtime = complete(entry["name"], entry["digest"]).get("runtime", "")
    return bool(switch_link(os.path.join(runtimes, "current"), os.path.relpath(runtime, runtimes)))


def make_live(name: str, digest: str, *, restart: bool, previous: str | None = None) -> bool:
    """Make a generation live; return whether anything changed.

    Args:
        name: of the instance.
        digest: of the generation.
        restart: start its engine anew where it is live already.
        previous: what `previous` is to name; empty for nothing, None for the generation that was live.
    """
    before, unit = linked(name), unit_of(name, digest)
    if before != digest:
        complete(name, digest)
    linked_more = link_dropins(name, digest)
    if before == digest and not restart and enabled_and_running(unit):
        return linked_more
    # Enabled first: a host that reboots between two of these lines starts whichever of them `current` names.
    systemctl("enable", "--quiet", unit)
    if before != digest:
        rename_links(name, digest, before, previous)
    if before and before != digest:
        leave(name, before, digest)
    if linked(name, "candidate") == digest:
        os.unlink(os.path.join(instance_folder(name), "candidate"))
    ready = property_of(unit, "ActiveState") == "active"  # it was a candidate, and has opened nothing yet
    run(["systemctl", "reset-failed", unit])
    # Only instances that share a GPU wait for each other; who asks for a token waits for all.
    systemctl("start", "--no-block", unit)
    if ready:
        systemctl("start", listener_of(name))
    return True


def enabled_and_running(unit: str) -> bool:
    """Return whether a unit starts at a boot, and runs or is about to."""
    running = property_of(unit, "ActiveState") in {"active", "activating"}
    return property_of(unit, "UnitFileState") == "enabled" and (running or property_of(unit, "Job") not in {"", "0"})


def rename_links(name: str, digest: str, before: str, previous: str | None) -> None:
    """Rename `current`; `previous` so that a run that dies in between leaves no failed generation as the way back."""
    folder = instance_folder(name)
    if previous is None and before:
        switch_link(os.path.join(folder, "previous"), f"generations/{before}")
    switch_link(os.path.join(folder, "current"), f"generations/{digest}")
    if previous:
        switch_link(os.path.join(folder, "previous"), f"generations/{previous}")
    elif previous is not None:
        remove(os.path.join(folder, "previous"))


def leave(name: str, before: str, digest: str) -> None:
    """Have a boot start the former live generation no more, and the proxy connect as the live one listens."""
    systemctl("disable", "--quiet", unit_of(name, before))
    folder = os.path.join(instance_folder(name), "generations")
    if text_of(os.path.join(folder, before, "join.conf")) != text_of(os.path.join(folder, digest, "join.conf")):
        systemctl("daemon-reload")
        systemctl("try-restart", proxy_of(name))


def requests_in(page: str) -> float | None:
    """Return the running and waiting requests that a page of vLLM's metrics tells; None where it tells none."""
    rows = [
        row for row in page.splitlines() if row.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting{"))
    ]
    try:
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows) if rows else None
    except (ValueError, IndexError):
        return None


def end_others(name: str, settle: float, timeout: int) -> bool:
    """Stop the engines of an instance that are not live, once their requests have ended; return whether one ran."""
    live, ran = linked(name), False
    for unit in units_of(name):
        digest = unit[: -len(".service")].rpartition(".")[2]
        if digest == live or digest == linked(name, "candidate"):
            continue
        state = property_of(unit, "ActiveState")
        if state in _ENDED:
            continue
        began, ran = time.monotonic(), True
        engine = Settings(f"/run/vllm-{name}.{digest}/api.sock", "", (), metrics_timeout_s=_METRICS_TIMEOUT_S)
        # One that is starting has no requests; one that does not tell may have some.
        while state == "active" and time.monotonic() - began < timeout:
            open_requests = requests_in(read_page(engine))
            if time.monotonic() - began >= settle and open_requests == 0:
                break
            time.sleep(_PAUSE_S)
            state = property_of(unit, "ActiveState")
        systemctl("stop", unit)
    return ran


def stop_engines(names: list[str]) -> bool:
    """Stop the engines of instances, of whatever generation, and return whether one ran."""
    running = [unit for name in names for unit in units_of(name) if property_of(unit, "ActiveState") not in _ENDED]
    if running:
        systemctl("stop", *running)
    return bool(running)


def remove_instance(name: str) -> list[str]:
    """Stop an instance and remove its files; return their paths."""
    stopped = [timer_of(name), *units_of(name), listener_of(name)]
    said = run(["systemctl", "stop", *stopped])[2]  # it also fails for one that is not loaded
    if active := [unit for unit in stopped if property_of(unit, "ActiveState") not in _ENDED]:
        raise SwitchError(f"{', '.join(active)} cannot be stopped: {tail(said, 3)}")
    run(["systemctl", "disable", "--quiet", timer_of(name), *units_of(name)])
    drop_ins = [
        f"vllm@{name}.service.d",
        f"{listener_of(name)}.d",
        f"{proxy_of(name)}.d",
        f"vllm-probe@{name}.service.d",
    ]
    paths = [
        *(os.path.join(UNITS, unit) for unit in units_of(name)),
        *(os.path.join(UNITS, f"{unit}.d") for unit in units_of(name)),
        *(os.path.join(UNITS, folder) for folder in drop_ins),
        os.path.join(_RECORD, f"{name}.json"),
        os.path.join(_GOLDEN, f"{name}.golden.json"),
        os.path.join(_METRICS, f"rackserve_instance_{name}.prom"),
        instance_folder(name),
    ]
    removed = [path for path in paths if remove(path)]
    systemctl("daemon-reload")
    return removed


def remove(path: str) -> bool:
    """Remove a file, link or folder; return whether there was one."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        return False
    return True


def unkept(name: str, keep: int) -> list[str]:
    """Return the digests of an instance that are not kept: not live, the one before or a candidate, and older."""
    held = {linked(name, link) for link in LINKS} - {""}
    folder = os.path.join(instance_folder(name), "generations")
    others = [digest for digest in os.listdir(folder) if digest not in held] if os.path.isdir(folder) else []
    newest_first = sorted(others, key=lambda digest: os.lstat(os.path.join(folder, digest)).st_mtime, reverse=True)
    return newest_first[max(0, keep - len(held)) :]


def keep_only(names: list[str], keep: int, runtimes: str, templates: str, *, check: bool) -> list[str]:
    """Remove what no kept generation of an instance needs; return the paths."""
    dropped = []
    for name in names:
        for digest in unkept(name, keep):
            unit = os.path.join(UNITS, unit_of(name, digest))
            dropped += [unit, f"{unit}.d", os.path.join(instance_folder(name), "generations", digest)]
    # All of the host's instances count, also those that this run does not name.
    left = [
        folder
        for name in instances()
        for folder in glob.glob(os.path.join(instance_folder(name), "generations", "*"))
        if folder not in dropped
    ]
    needed = "\n".join(
        text_of(os.path.join(folder, file)) for folder in left for file in ("generation.json", "engine.yaml")
    )
    current = os.path.realpath(os.path.join(runtimes, "current")) if runtimes else ""
    for folder in glob.glob(os.path.join(runtimes, "releases", "*")) if runtimes and left else []:
        if f'"{folder}"' not in needed and folder != current:
            dropped.append(folder)
    for template in glob.glob(os.path.join(templates, "*.jinja")) if templates and left else []:
        if template not in needed:
            dropped.append(template)
    found = [path for path in dropped if os.path.lexists(path)]
    if not check and found:
        for path in found:
            remove(path)
        systemctl("daemon-reload")
    return found


def act(params: dict[str, Any]) -> dict[str, Any]:
    """Do what the task asks for; return `changed` and `removed`."""
    entries, removed, changed = params["instances"], [], False
    if params["state"] == "candidate":
        for entry in entries:
            start_candidate(entry["name"], entry["digest"], params["timeout"])
            changed = True
    elif params["state"] == "live":
        changed = make_all_live(entries, params)
    elif params["state"] == "ended":
        for entry in entries:
            dropped = drop_candidate(entry["name"])
            changed |= end_others(entry["name"], params["settle"], params["timeout"]) or dropped
    elif params["state"] == "stopped":
        changed = stop_engines([entry["name"] for entry in entries])
    elif params["state"] == "absent":
        removed = [path for entry in entries for path in remove_instance(entry["name"])]
    else:
        names = [entry["name"] for entry in entries]
        removed = keep_only(names, params["keep"], params["runtimes"], params["templates"], check=False)
    return {"changed": changed or bool(removed), "removed": removed}


def make_all_live(entries: list[dict[str, Any]], params: dict[str, Any]) -> bool:
    """Make generations live; return whether anything changed."""
    changed = False
    if not params["overlap"]:
        stop_before(entries, restart=params["restart"])
    for entry in entries:
        changed |= make_live(entry["name"], entry["digest"], restart=params["restart"], previous=entry.get("previous"))
    if params["runtimes"] and entries:
        changed |= follow_runtime(params["runtimes"], entries[-1])
    return changed


def would(params: dict[str, Any]) -> dict[str, Any]:
    """Return what `act` would, without doing it."""
    names = [entry["name"] for entry in params["instances"]]
    if params["state"] == "kept":
        removed = keep_only(names, params["keep"], params["runtimes"], params["templates"], check=True)
        return {"changed": bool(removed), "removed": removed}
    if params["state"] == "absent":
        removed = [instance_folder(name) for name in names if os.path.isdir(instance_folder(name))]
        return {"changed": bool(removed), "removed": removed}
    differs = any(linked(entry["name"]) != entry.get("digest") for entry in params["instances"])
    return {"changed": differs and params["state"] == "live", "removed": []}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "required": True,
                "choices": ["candidate", "live", "ended", "stopped", "absent", "kept"],
            },
            "instances": {"type": "list", "elements": "dict", "required": True},
            "overlap": {"type": "bool", "default": False},
            "restart": {"type": "bool", "default": False},
            "settle": {"type": "float", "default": 10},
            "timeout": {"type": "int", "default": 600},
            "keep": {"type": "int", "default": 3},
            "runtimes": {"type": "str", "default": ""},
            "templates": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params, began = module.params, time.monotonic()
    before = {entry["name"]: linked(entry["name"]) for entry in params["instances"]}
    try:
        if module.check_mode:
            done = would(params)
        else:
            with host_lock():
                done = act(params)
    except (SwitchError, OSError) as failed:
        module.fail_json(msg=str(failed), before=before)
    module.exit_json(**done, before=before, seconds=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
