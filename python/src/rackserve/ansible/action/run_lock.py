"""Locks one host for the present run, or says who holds it; the callback `record_run` gives the lock back at the end.

The task's options:
    state: take (the default), read; and release, for the callback.
    folder: of the lock, on the host.
    host: the name of the locked host, where the task is delegated.
    break_runs: ids of runs whose lock is broken, unless they run on this controller.
    reason: why, for the record.
    consents: what else the operator allowed, by name, for the record; empty ones are left out.

It never fails: the result has `refused` or `text`, of which `rackserve_lock_refusals` makes one message for all hosts,
so that no host goes on where one is held.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from rackserve import history
from rackserve._schema import plain
from rackserve.errors import RackserveError

_NO_RUN = (
    "the callback plugin record_run is not loaded, which gives locks back; run from the checkout, so that its "
    "ansible.cfg is read, and unset ANSIBLE_CALLBACK_PLUGINS or add python/src/rackserve/ansible/callback to it"
)


_BROKEN = "the lock of this run was broken by another one; see rackserve history"


class ActionModule(ActionBase):  # type: ignore[misc]
    """The host's side is the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `lock`, and `refused` (the holder and its ages) or `text`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked = plain(self._task.args)
        state, run = asked.get("state", "take"), history.present()
        name = str(asked.get("host") or (task_vars or {})["inventory_hostname"])
        if state == "read":
            found = self._module({"state": state, "folder": asked["folder"]}, task_vars)
            return {**result, **found, **_known(found.get("holder"))}
        if run is None:
            told = {"changed": False, "host": name, "text": _NO_RUN}
        elif state == "release":
            told = self._release(run, name, task_vars)
        elif name in run.locks:
            folder = run.locks[name].folder
            found = self._module({"state": "renew", "folder": folder, **_who(run)}, task_vars)
            told = _result(run, name, folder, found)
        elif name in run.lost:
            told = {"changed": False, "host": name, "text": _BROKEN}
        else:
            try:
                told = self._take(run, name, asked, task_vars)
            except RackserveError as failed:  # this controller has no ssh-keygen
                told = {"changed": False, "host": name, "text": str(failed)}
        return {**result, **told}

    def _take(
        self, run: history.PresentRun, name: str, asked: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        options = {"state": "take", "folder": asked["folder"], **_who(run)}
        found = self._module(options, task_vars)
        given = asked.get("consents") or {}
        records = [{"kind": "consent", "what": what, "reason": why} for what, why in given.items() if why]
        notes: list[str] = []
        if found.get("holder") and not found["mine"]:
            wanted = asked.get("break_runs") or []
            breaks = found["holder"]["run"] in ([wanted] if isinstance(wanted, str) else wanted)
            known = history.liveness(found["holder"])
            if known is history.Liveness.ENDED or (breaks and known is history.Liveness.UNKNOWN):
                found = self._module({**options, "replace": [found["holder"]["run"]]}, task_vars)
            before = found.get("replaced")
            if before:
                kind = "lock_broken" if breaks else "lock_taken_over"
                reason = (str(asked.get("reason") or "") if breaks else "") or known.value
                records.append({"kind": kind, "host": name, "of": _who_was(before), "reason": reason})
                notes.append(f"{name}: took over the lock of {history.describe(before)}: {reason}")
        told = _result(run, name, asked["folder"], found)
        if found.get("mine"):
            told |= {history.KEY: records, "notes": notes, "warnings": notes}
        return told

    def _release(self, run: history.PresentRun, name: str, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        options: dict[str, Any] = {"state": "release", **_who(run)}
        lock = run.locks.get(name)
        if lock:
            options |= {"folder": lock.folder, "line": run.lines.get(name, ""), "head": dict(lock.head)}
        elif run.asked.get(name):
            options["folder"] = run.asked[name]
        return self._module(options, task_vars)

    def _module(self, options: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module("run_lock", module_args=options, task_vars=task_vars)
        return found


def _who(run: history.PresentRun) -> dict[str, Any]:
    return {"run": run.holder}


def _who_was(holder: dict[str, Any]) -> dict[str, Any]:
    return {key: holder.get(key) for key in ("run", "user", "host", "command", "since")}


def _known(holder: dict[str, Any] | None) -> dict[str, Any]:
    return {"known": history.liveness(holder).name.lower()} if holder else {}


def _result(run: history.PresentRun, name: str, folder: str, found: dict[str, Any]) -> dict[str, Any]:
    if "mine" not in found:  # the module could not run, or could not write
        text = str(found.get("msg") or "the lock could not be taken").strip()
        return {"changed": False, "host": name, "text": text}
    lock = {"host": name, "folder": folder, "mine": found["mine"], "head": found["head"]}
    told: dict[str, Any] = {"changed": False, "host": name, "lock": lock, "rackserve_run": run.id}
    if found["mine"]:
        return told
    if found["holder"]:
        return {**told, "refused": {key: found[key] for key in ("holder", "age_s", "seen_s", "busy")}}
    return {**told, "text": _BROKEN}
