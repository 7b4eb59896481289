"""Unpacking: from the transport layout of a medium to files by their paths."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from ._files import copy_verified, file_problem, folder_problems, place, reject, sync
from ._manifest import Entry, transport_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


def unpack(
    bundle: str, entries: list[Entry], dest: str, signed: Mapping[str, bytes], ignored: Iterable[str], *, own: bool
) -> None:
    """Write the unpacked layout of a bundle; nothing has the name `dest` before every byte of it was verified.

    Args:
        bundle: a folder in transport layout.
        entries: the files of its verified manifest.
        dest: a folder that does not exist.
        signed: by path, the verified bytes of manifest, signature and attestations.
        ignored: further paths that the bundle may have; they are left out.
        own: whether only this program can write into the bundle's folder; then its files are linked, not copied.

    Raises:
        BundleRejected: with every file that is missing, altered or not in the manifest.
        OSError: when the disk is full.
    """
    dest = os.path.abspath(dest)
    draft = tempfile.mkdtemp(prefix=f".{os.path.basename(dest)}-", dir=os.path.dirname(dest))
    os.chmod(draft, 0o755)  # noqa: S103 - others read it, whatever the umask
    first = {entry.sha256: entry.path for entry in reversed(entries)}
    try:
        for folder in {os.path.dirname(path) for path in (*(entry.path for entry in entries), *signed)}:
            _make_folder(draft, folder)
        take = _taker(draft, first, own=own)
        reject(folder_problems(bundle, transport_files(entries), {*signed, *ignored}, problem_of=take))
        for entry in entries:
            if first[entry.sha256] != entry.path:
                place(os.path.join(draft, first[entry.sha256]), os.path.join(draft, entry.path))
        for path, data in signed.items():
            with open(os.path.join(draft, path), "wb") as target:
                os.fchmod(target.fileno(), 0o644)
                target.write(data)
        sync(draft)
        os.rename(draft, dest)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _taker(draft: str, first: Mapping[str, str], *, own: bool) -> Callable[[str, Entry], str | None]:
    def take(root: str, entry: Entry) -> str | None:
        if entry.path != entry.blob:
            return file_problem(root, entry)  # the verifier's copy beside the manifest
        target = os.path.join(draft, first[entry.sha256])
        if not own:
            return copy_verified(root, entry, target)
        problem = file_problem(root, entry)
        if problem is None:
            place(os.path.join(root, entry.path), target)
        return problem

    return take


def _make_folder(root: str, folder: str) -> None:
    path = root
    for part in filter(None, folder.split("/")):
        path = os.path.join(path, part)
        if not os.path.isdir(path):
            os.mkdir(path)
            os.chmod(path, 0o755)  # noqa: S103 - others read it, whatever the umask
