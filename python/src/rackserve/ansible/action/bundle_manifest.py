"""Read the manifest of the bundle on the controller, once a run.

The task's options: `path` (the bundle on the controller), `trust_file` (who may sign: compares signature, date and
every byte first) and `known` (what an earlier task of the run registered: of the same path, it is returned unread).
Run it once for all hosts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from rackserve import bundle, history
from rackserve._schema import plain
from rackserve.errors import RackserveError


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller, where the bundle is."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `path`, and `text`: the manifest as it was signed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked = plain(self._task.args)
        known = asked.get("known") or {}
        if known.get("path") == asked["path"] and "text" in known:
            return {**result, "changed": False, "path": known["path"], "text": known["text"]}
        path = Path(asked["path"])
        try:
            trust_file = asked.get("trust_file")
            trust = bundle.read_trust(Path(trust_file)) if trust_file else None
            manifest = bundle.read_intact(path, trust) if trust else bundle.read_manifest(path)
        except RackserveError as refused:
            return {**result, "failed": True, "msg": str(refused)}
        record = {"kind": "bundle", "name": manifest.name, "version": manifest.version, "id": manifest.id}
        found = {"path": str(asked["path"]), "text": manifest.to_bytes().decode(), history.KEY: record}
        return {**result, "changed": False, **found}
