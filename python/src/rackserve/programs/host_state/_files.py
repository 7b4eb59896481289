"""Files, folders and links: what they are, and their content by its digest."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import struct
from typing import TYPE_CHECKING, Any, Optional

from ._patterns import below, expand, fixed, leads_to, matches, walk

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._host import Host

# Beyond it a file is compared by size, time of change and inode.
DIGESTED = 64 << 20
_CHUNK = 1 << 20
# linux/fs.h: FS_IOC_GETFLAGS of a 64-bit kernel, FS_IMMUTABLE_FL, FS_APPEND_FL.
_GETFLAGS = 0x80086601
_FLAGS = {0x10: "immutable", 0x20: "append-only"}
# Extended attributes that change what a file may do; a label of SELinux or a digest of IMA is the system's own.
_XATTRS = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
_TYPES = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISLNK, "link"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISFIFO, "pipe"),
)
Entry = dict[str, Any]


def _attributes(path: str, handle: Optional[int]) -> str:  # noqa: UP045 - Python 3.9 runs this
    """Return the attributes beside the mode that decide what may be done with a file, such as `immutable`."""
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(set(os.listxattr(path, follow_symlinks=False)) & set(_XATTRS)):
            value = os.getxattr(path, name, follow_symlinks=False)
            found.append(f"{name.rpartition('.')[2]} {hashlib.sha256(value).hexdigest()[:12]}")
    if handle is not None:
        found += flags_of(handle)
    return ", ".join(found)


def flags_of(handle: int) -> list[str]:
    """Return the flags of an open file that chattr(1) sets; none where the filesystem has no flags."""
    flags = bytearray(8)
    try:
        fcntl.ioctl(handle, _GETFLAGS, flags)
    except OSError:
        return []
    (bits,) = struct.unpack_from("I", flags)
    return [name for bit, name in _FLAGS.items() if bits & bit]


def read_entry(host: Host, path: str, *, content: bool = True) -> Optional[Entry]:  # noqa: UP045 - Python 3.9 runs this
    """Return what lies at a path, None for nothing; keys that begin with `_` are not compared.

    Args:
        host: the host.
        path: of the host.
        content: whether the content of a file counts.
    """
    where = host.at(path)
    try:
        found = os.lstat(where)
    except OSError:
        return None
    kind = next((name for test, name in _TYPES if test(found.st_mode)), "device")
    entry: Entry = {"type": kind, "owner": host.user(found.st_uid), "group": host.group(found.st_gid)}
    entry["_changed"] = found.st_ctime
    if kind == "link":
        with contextlib.suppress(OSError):
            entry["target"] = os.readlink(where)
        return entry
    entry["mode"] = f"{stat.S_IMODE(found.st_mode):04o}"
    handle = None
    if kind in ("file", "folder"):
        with contextlib.suppress(OSError):
            handle = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        entry["attributes"] = _attributes(where, handle)
        if kind == "file" and content:
            entry["content"] = _content(handle, found)
    finally:
        if handle is not None:
            os.close(handle)
    return entry


def _content(handle: Optional[int], found: os.stat_result) -> str:  # noqa: UP045 - Python 3.9 runs this
    if handle is None:
        return "unreadable"
    if found.st_size > DIGESTED:
        return f"{found.st_size} bytes of {found.st_mtime_ns} in {found.st_ino}"
    digest = hashlib.sha256()
    while chunk := os.read(handle, _CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def read_files(host: Host, owned: dict[str, Any]) -> dict[str, Entry]:
    """Return every file, folder and link that a declaration names, and the folders that they are in."""
    skip = [*owned["trees"], *owned["changing"]]
    found: dict[str, Entry] = {}
    parents = set()
    for pattern in owned["files"]:
        parents |= _parents(fixed(pattern) + "/x")
        for path in expand(host, pattern, skip):
            parents |= _parents(path)
            _add(found, path, read_entry(host, path))
    for pattern in [*owned["folders"], *skip]:
        parents |= _parents(fixed(pattern) + "/x")
        for path in expand(host, pattern, []):
            _add(found, path, read_entry(host, path, content=False))
    for path in sorted(parents - set(found)):
        _add(found, path, read_entry(host, path, content=False))
    return found


def _add(found: dict[str, Entry], path: str, entry: Optional[Entry]) -> None:  # noqa: UP045 - Python 3.9 runs this
    if entry is not None:
        found[path] = entry


def _parents(path: str) -> set[str]:
    names = path.split("/")
    return {"/".join(names[:count]) for count in range(2, len(names))} - {"/run"}


def unowned(host: Host, declared: Iterable[dict[str, Any]]) -> dict[str, Entry]:
    """Return what lies in the folders that are ours alone and that no declaration names."""
    every = list(declared)
    files = [pattern for owned in every for pattern in owned["files"]]
    skip = [pattern for owned in every for key in ("trees", "changing") for pattern in owned[key]]
    folders = sorted({folder for owned in every for folder in owned["folders"]})
    found: dict[str, Entry] = {}
    known = [*files, *folders, *skip]
    for top in folders:
        strangers: list[str] = []
        for path, is_folder in walk(host, top, skip, lambda _: True):
            if below(path, strangers) or matches(path, files) or path in folders:
                continue
            if is_folder and leads_to(path, known):
                continue
            strangers.append(path)
            _add(found, path, read_entry(host, path, content=False))
    return found


# --- trees: too large for digests


def read_tree(host: Host, top: str) -> dict[str, dict[str, str]]:
    """Return folder -> name -> what lies there, as one text, of everything below a folder.

    A file's text has mode, owner, group, size, time of change (ns), inode; then the time of its inode's change (ns) and
    the number of its names.
    """
    found: dict[str, dict[str, str]] = {}
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(host.at(folder)) as listed:
                rows = found[folder] = {one.name: _row(one) for one in listed}
        except OSError:
            continue
        waiting += [f"{folder}/{name}" for name, row in rows.items() if row.startswith("d")]
    return found


def _row(one: os.DirEntry[str]) -> str:
    try:
        seen = one.stat(follow_symlinks=False)
        if stat.S_ISLNK(seen.st_mode):
            return f"l {os.readlink(one.path)}"
    except OSError:
        return "?"
    head = f"{seen.st_mode & 0o7777:04o} {seen.st_uid} {seen.st_gid}"
    if stat.S_ISDIR(seen.st_mode):
        return f"d {head}"
    if stat.S_ISREG(seen.st_mode):
        return f"f {head} {seen.st_size} {seen.st_mtime_ns} {seen.st_ino} {seen.st_ctime_ns} {seen.st_nlink}"
    return f"o {head} {seen.st_mode:o}"
