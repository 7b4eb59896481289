"""Send to a host the files of the bundle that it lacks, in a few archives instead of one copy a file.

The task's options: `bundle` (what bundle_manifest returned), `dest` (its folder on the host) and `parts` (paths inside
the bundle; a path means everything below it).
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from rackserve._schema import plain
from rackserve.bundle import Entry, parse_manifest
from rackserve.programs.verify_bundle import HOST_PARTS, MANIFEST, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_BATCH_BYTES: Final = 256 << 20
# On the host; of one run, and gone with the next boot.
_DIGESTS: Final = "/run/rackserve/bundle-digests.json"


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


def pack(bundle: Path, entries: Iterable[Entry], own: Mapping[str, bytes], archive: str) -> None:
    """Write files into an archive, each as a plain one: in the bundle, names of the same content are hard links.

    Args:
        bundle: the bundle on the controller.
        entries: the files to write.
        own: by path, the bytes of files that are not read from the bundle.
        archive: path of the archive.
    """
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT, dereference=True) as target:
        for entry in entries:
            if entry.path in own:
                member = tarfile.TarInfo(entry.path)
                member.size = entry.size
                target.addfile(member, io.BytesIO(own[entry.path]))
            else:
                target.add(bundle / entry.path, arcname=entry.path, recursive=False)


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; the host's side are the modules `bundle_compare` and `bundle_unpack`."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `changed`, `sent_bytes`, `removed`, `read_bytes`, and `digests` of what the host read in this run."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked = plain(self._task.args)
        bundle, text, dest = Path(asked["bundle"]["path"]), asked["bundle"]["text"], asked["dest"]
        entries = parse_manifest(text.encode()).under(tuple(asked["parts"]))
        # They come last: until every file is there, the host's manifest is the one before.
        own = {
            HOST_PARTS: (json.dumps(sorted(entry.path for entry in entries), indent=1) + "\n").encode(),
            MANIFEST: text.encode(),
            SIGNATURE: (bundle / SIGNATURE).read_bytes(),
        }
        wanted = (*entries, *(Entry(path, len(data), sha256(data).hexdigest()) for path, data in own.items()))
        options = {"root": dest, "files": [entry._asdict() for entry in wanted], "digests": _DIGESTS}
        found = self._execute_module("bundle_compare", module_args=options, task_vars=task_vars)
        if found.get("failed"):
            return dict(found)
        missing = set(found["missing"])
        sent = tuple(entry for entry in wanted if entry.path in missing)
        size = sum(entry.size for entry in sent)
        result |= {"changed": bool(sent or found["removed"]), "sent_bytes": size, "removed": found["removed"]}
        done, started, read = 0, time.monotonic(), found["read_bytes"]
        for group in batches(sent) if not self._task.check_mode else ():
            options = {"root": dest, "files": [entry._asdict() for entry in group], "digests": found["digests"]}
            with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
                pack(bundle, group, own, archive.name)
                found = self._send(archive.name, options, task_vars)
            if found.get("failed"):
                return found
            read += found["read_bytes"]
            done += sum(entry.size for entry in group)
            host = (task_vars or {}).get("inventory_hostname", "host")
            left = (time.monotonic() - started) * (size - done) / max(done, 1)
            Display().display(f"{host}: bundle {done / 1e6:.0f} of {size / 1e6:.0f} MB, {left:.0f} s left")
        return {**result, "read_bytes": read, "digests": found["digests"]}

    def _send(self, archive: str, options: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        if not self._connection._shell.tmpdir:  # noqa: SLF001 - the documented way of action plugins
            self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "bundle.tar")  # noqa: SLF001
        self._transfer_file(archive, remote)
        done = self._execute_module("bundle_unpack", module_args={**options, "archive": remote}, task_vars=task_vars)
        self._connection.exec_command(f"rm -f {remote}")
        return dict(done)
