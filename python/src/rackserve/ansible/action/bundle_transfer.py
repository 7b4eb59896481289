"""Send to a host the files of the bundle that it lacks, in a few archives instead of one copy a file.

The task's options: `bundle` (what bundle_manifest returned), `dest` (its folder on the host) and `parts` (paths inside
the bundle; a path means everything below it).
"""

from __future__ import annotations

import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from rackserve._schema import plain
from rackserve.bundle import parse_manifest
from rackserve.programs.verify_bundle import MANIFEST, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rackserve.bundle import Entry

_BATCH_BYTES: Final = 256 << 20


def batches(entries: tuple[Entry, ...], limit: int = _BATCH_BYTES) -> Iterator[list[Entry]]:
    """Cut files into groups of at most `limit` bytes; a larger file is a group of its own."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        if group and size + entry.size > limit:
            yield group
            group, size = [], 0
        group.append(entry)
        size += entry.size
    if group:
        yield group


def pack(bundle: Path, entries: Iterable[Entry], archive: str) -> None:
    """Write files into an archive, each as a plain one: in the bundle, names of the same content are hard links."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT, dereference=True) as target:
        for entry in entries:
            target.add(bundle / entry.path, arcname=entry.path, recursive=False)


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; the host's side is the module `bundle_files`."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `changed` and `sent_bytes`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked = plain(self._task.args)
        bundle, text, dest = Path(asked["bundle"]["path"]), asked["bundle"]["text"], asked["dest"]
        entries = parse_manifest(text.encode()).under(tuple(asked["parts"]))
        wanted = [{"path": entry.path, "size": entry.size, "sha256": entry.sha256} for entry in entries]
        found = self._host({"root": dest, "files": wanted, "prune": True}, task_vars)
        if found.get("failed"):
            return found
        missing = set(found["missing"])
        sent = tuple(entry for entry in entries if entry.path in missing)
        size = sum(entry.size for entry in sent)
        changed = bool(sent or found["removed"])
        if not self._task.check_mode:
            done, started = 0, time.monotonic()
            for group in batches(sent):
                failure = self._send(bundle, dest, group, task_vars)
                if failure:
                    return failure
                done += sum(entry.size for entry in group)
                host = (task_vars or {}).get("inventory_hostname", "host")
                left = (time.monotonic() - started) * (size - done) / done
                Display().display(f"{host}: bundle {done / 1e6:.0f} of {size / 1e6:.0f} MB, {left:.0f} s left")
            names = {
                MANIFEST: text,
                SIGNATURE: (bundle / SIGNATURE).read_text(encoding="utf-8"),
            }
            closed = self._host({"root": dest, "files": wanted, "texts": names}, task_vars)
            if closed.get("failed") or closed["missing"]:
                return {
                    **closed,
                    "failed": True,
                    "msg": closed.get("msg") or f"files differ after the transfer: {', '.join(closed['missing'])}",
                }
            changed = changed or closed["changed"]
        return {**result, "changed": changed, "sent_bytes": size, "removed": found["removed"]}

    def _host(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module("bundle_files", module_args=args, task_vars=task_vars)
        return found

    def _send(
        self, bundle: Path, dest: str, group: list[Entry], task_vars: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Send one group; return the failure, if any."""
        if not self._connection._shell.tmpdir:  # noqa: SLF001 - the documented way of action plugins
            self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "bundle.tar")  # noqa: SLF001
        with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
            pack(bundle, group, archive.name)
            self._transfer_file(archive.name, remote)
        wanted = [{"path": entry.path, "size": entry.size, "sha256": entry.sha256} for entry in group]
        done = self._host({"root": dest, "files": wanted, "archive": remote}, task_vars)
        self._connection.exec_command(f"rm -f {remote}")
        return done if done.get("failed") else None
