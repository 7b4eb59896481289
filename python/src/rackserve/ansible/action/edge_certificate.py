"""Have a certificate of the site's own authority for an edge, before it ends. Nothing is asked of the host.

The task's options: `folder` (the authority's, on the controller), `names` (DNS names and addresses; the first is the
subject's) and `renew` (make it anew in any case). The pair is named after the host. A list of revoked certificates that
ends soon is made anew too. Where the folder has no `ca.key`, nothing is done: the certificate is another's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from rackserve import pki
from rackserve.errors import RackserveError


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller, where the authority's key is."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `changed` and `outcome`: kept, made, renewed or absent."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked = self._task.args
        folder = Path(str(asked["folder"])).expanduser()
        names = [str(name) for name in asked["names"]]
        host = str((task_vars or {})["inventory_hostname"])
        try:
            outcome = pki.ensure_server(
                folder,
                host,
                names,
                renew=bool(asked.get("renew")),
                write=not self._task.check_mode,
            )
            if outcome != "absent" and (folder / "crl.pem").is_file() and not self._task.check_mode:
                pki.ensure_list(folder)
        except (RackserveError, OSError) as wrong:
            return {**result, "failed": True, "msg": str(wrong)}
        return {**result, "changed": outcome in {"made", "renewed"}, "outcome": outcome}
