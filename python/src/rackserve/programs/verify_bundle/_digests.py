"""The digests of one run, so that it reads each file of a host's bundle once."""

from __future__ import annotations

import hashlib
import json
import os
import threading

from ._files import sha256_of, write_durably


class Digests:
    """The sha256 of each file that was read in one run, so that the run reads each file once.

    Content is identified by its device, inode, size and times of change in nanoseconds: what was written or replaced
    since is read again. Saved digests are accepted only with the sha256 of the saved file: those of another run are
    not.
    """

    def __init__(self, known: dict[str, str] | None = None) -> None:
        self._known = dict(known or {})
        self._lock = threading.Lock()
        self.read_bytes = 0

    @classmethod
    def load(cls, path: str, sha256: str) -> Digests:
        """Return the digests of a file with that sha256; none where the file is missing or differs."""
        try:
            with open(path, "rb") as source:
                data = source.read()
        except FileNotFoundError:
            return cls()
        return cls(json.loads(data)) if hashlib.sha256(data).hexdigest() == sha256 else cls()

    def save(self, path: str) -> str:
        """Write them to a file and return its sha256, which `load` needs."""
        text = json.dumps(self._known, indent=0, sort_keys=True)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write_durably(path, text)
        return hashlib.sha256(text.encode()).hexdigest()

    def of(self, path: str) -> str:
        """Return the sha256 of a file in hex; a file that is known is not read again."""
        status = os.stat(path)
        if _content(status) in self._known:
            return self._known[_content(status)]
        digest = sha256_of(path)
        with self._lock:
            self.read_bytes += status.st_size
        if _content(os.stat(path)) == _content(status):
            self._known[_content(status)] = digest
        return digest

    def rename(self, source: str, target: str) -> None:
        """Rename a file; the kernel counts that as a change, but its bytes need not be read again."""
        before = _content(os.stat(source))
        os.replace(source, target)
        after = _content(os.stat(target))
        if before in self._known and before.rpartition(":")[0] == after.rpartition(":")[0]:
            self._known[after] = self._known[before]


def _content(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
