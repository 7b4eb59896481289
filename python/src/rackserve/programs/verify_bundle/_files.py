"""Files of a bundle: reading them from a medium that others can write, comparing them, and copying them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING

from ._manifest import MANIFEST, BundleRejected, Entry, excerpt, is_safe_path, transport_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHUNK = 1 << 20
MAX_MANIFEST = 64 << 20
SHOWN = 10
DRAFT = "#new"  # ends the name of a file that is being written; no path of a manifest has "#"

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def reject(problems: list[str]) -> None:
    """Reject a bundle when there are problems.

    Raises:
        BundleRejected: naming the first ones.
    """
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise BundleRejected("; ".join(problems[:SHOWN]) + more)


def write_durably(path: str, text: str) -> None:
    """Replace a text file atomically; also after a power loss it is the old or the new one."""
    draft = f"{path}.new"
    with open(draft, "w", encoding="utf-8") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    os.replace(draft, path)
    sync(os.path.dirname(os.path.abspath(path)))


def sync(path: str) -> None:
    """Make a file's bytes, or a folder's names, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe that took the file's name would be waited for


def _as_it_is(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def sha256_of(path: str) -> str:
    """Return the sha256 of a file in hex, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb", opener=_without_waiting) as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def files_at(bundle: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the files that a bundle's folder should hold, in its layout."""
    return transport_files(entries) if os.path.isdir(os.path.join(bundle, "blobs")) else list(entries)


def file_problem(root: str, entry: Entry, digest_of: Callable[[str], str] = sha256_of) -> str | None:
    """Return the problem of one file of a bundle, or None."""
    path = os.path.join(root, entry.path)
    try:
        problem = _status_problem(entry, os.lstat(path))
        if problem is None and digest_of(path) != entry.sha256:
            problem = _altered(entry)
    except OSError as failed:
        return _unread(entry, failed)
    return problem


def _altered(entry: Entry) -> str:
    return f"{entry.path} was altered: its sha256 is not the manifest's"


def _unread(entry: Entry, failed: OSError) -> str:
    if failed.errno in {errno.ENOENT, errno.ENOTDIR}:
        return f"{entry.path} is missing"
    if failed.errno == errno.ELOOP:
        return f"{entry.path} is a link; a bundle holds plain files only"
    return f"{entry.path} cannot be read: {failed.strerror}"


def _status_problem(entry: Entry, status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return f"{entry.path} is a link; a bundle holds plain files only"
    if not stat.S_ISREG(status.st_mode):
        return f"{entry.path} is not a plain file"
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return f"{entry.path} is set-user-id; a bundle holds no programs of that kind"
    if status.st_size != entry.size:
        return f"{entry.path} has {status.st_size} bytes, its manifest says {entry.size}"
    return None


def folder_problems(
    root: str,
    wanted: Iterable[Entry],
    known: Iterable[str] = (),
    on_file: Callable[[Entry], None] = lambda _: None,
    problem_of: Callable[[str, Entry], str | None] = file_problem,
) -> list[str]:
    """Compare a folder with what it should hold, byte for byte, and return a sentence for every difference.

    Args:
        root: the folder; empty folders in it are ignored.
        wanted: the files that must be there, by their paths in this folder.
        known: other paths that may be there.
        on_file: called after each file was read, for progress.
        problem_of: given the folder and a file, it returns the file's problem, or None.
    """
    wanted = list(wanted)
    paths = {entry.path for entry in wanted}
    allowed = paths | set(known)
    found = []
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted(links + names):
            relative = os.path.relpath(os.path.join(folder, name), root)
            shown = relative if is_safe_path(relative) else excerpt(relative)
            if os.path.islink(os.path.join(folder, name)) and relative not in paths:
                found.append(f"{shown} is a link; a bundle holds plain files only")
            elif relative not in allowed:
                found.append(f"{shown} is in the bundle but not in its manifest")

    def check(entry: Entry) -> str | None:
        problem = problem_of(root, entry)
        on_file(entry)
        return problem

    with ThreadPoolExecutor() as pool:
        found.extend(problem for problem in pool.map(check, wanted) if problem)
    return found


def read_bounded(root: str, name: str, most: int = MAX_MANIFEST) -> bytes:
    """Return the bytes of the manifest or another small file of a bundle.

    Raises:
        BundleRejected: when it is missing, cannot be read, is too large or is not a plain file.
    """
    path = os.path.join(root, name)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise BundleRejected(f"{name} is not a plain file")
        with open(path, "rb", opener=_as_it_is) as source:
            status = os.fstat(source.fileno())
            data = source.read(most + 1)
    except OSError as failed:
        if name == MANIFEST and failed.errno in {errno.ENOENT, errno.ENOTDIR}:
            raise BundleRejected(f"no bundle at {root}: {name} is missing") from None
        raise BundleRejected(_unread(Entry(name, 0, ""), failed)) from failed
    if not stat.S_ISREG(status.st_mode):
        raise BundleRejected(f"{name} is not a plain file")
    if len(data) > most:
        raise BundleRejected(f"{name} has {max(status.st_size, len(data))} bytes; at most {most} are read")
    return data


def copy_verified(root: str, entry: Entry, target: str) -> str | None:
    """Copy a file from a folder that others can write; return its problem, or None.

    The copy shares no inode with its source, has mode 0644, and gets its name only once its own bytes were found to
    have the sha256. File systems that clone (reflink) take no space for it.

    Args:
        root: the folder.
        entry: the file.
        target: path of the copy; its folder exists.

    Raises:
        OSError: when the copy cannot be written, as on a full disk.
    """
    draft = f"{target}{DRAFT}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    try:
        problem = _copy(os.path.join(root, entry.path), entry, draft)
        if problem is None and sha256_of(draft) != entry.sha256:
            problem = _altered(entry)
        if problem is None:
            os.replace(draft, target)
    except OSError as failed:
        failed.filename = failed.filename or target  # a full disk: the one that is written to
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
    return problem


def _copy(path: str, entry: Entry, draft: str) -> str | None:
    try:
        problem = _status_problem(entry, os.lstat(path))
        source = open(path, "rb", opener=_as_it_is) if problem is None else None  # noqa: SIM115
    except OSError as failed:
        return _unread(entry, failed)
    if source is None:
        return problem
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with source, open(handle, "wb") as target:
        problem = _status_problem(entry, os.fstat(source.fileno()))
        if problem is None and not _clone(source, target):
            problem = _copy_bytes(source, entry, target)
        os.fchmod(target.fileno(), 0o644)
        target.flush()
        os.fsync(target.fileno())
    return problem


def _copy_bytes(source: IO[bytes], entry: Entry, target: IO[bytes]) -> str | None:
    left = entry.size + 1
    while left > 0:
        try:
            chunk = source.read(min(CHUNK, left))
        except OSError as failed:
            return _unread(entry, failed)
        if not chunk:
            break
        target.write(chunk)
        left -= len(chunk)
    return None


def _clone(source: IO[bytes], target: IO[bytes]) -> bool:
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError as failed:
        if failed.errno in _NO_SPACE:
            raise
        return False
    return True


def clones(path: str, folder: str) -> bool:
    """Return whether a copy of a file into a folder takes no space: both are on one file system that can clone."""
    probe = os.path.join(folder, ".clone-probe")
    try:
        with open(path, "rb", opener=_as_it_is) as source, open(probe, "wb") as target:
            return _clone(source, target)
    except OSError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(probe)


def place(source: str, target: str) -> None:
    """Hard-link a file of our own, or copy it where a hard link is not possible."""
    try:
        os.link(source, target)
    except OSError:
        with open(source, "rb") as data, open(target, "wb") as copy:
            while chunk := data.read(CHUNK):
                copy.write(chunk)
