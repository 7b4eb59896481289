"""Trees: too large for digests, so their files are compared by owner, mode, size, time of change and inode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._difference import Difference, changed, gone, iso, new

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE_CELLS = 9
_MODE, _UID, _GID, _SIZE, _MTIME, _INODE, _CTIME, _NAMES = range(1, _FILE_CELLS)


def tree_differences(top: str, recorded: dict[str, Any], found: dict[str, Any], role: str) -> Iterator[Difference]:
    """Yield the differences of one tree, parents before what is below; of a folder that is gone or new, one."""
    for folder in sorted({*recorded, *found}):
        before, now = recorded.get(folder), found.get(folder)
        if before is None or now is None:
            continue  # its parent tells of it; the tree's own folder is compared as a file
        for name in sorted({*before, *now}):
            path = f"{folder}/{name}"
            if name not in now:
                yield gone("file", path, _type(before[name]), f"{path} is gone", role=role)
            elif name not in before:
                since = _since(now[name])
                yield new("file", path, _type(now[name]), f"{path} is new in {top}", role=role, since=since)
            elif before[name] != now[name]:
                yield from _row_differences(path, before[name], now[name], role)


def _row_differences(path: str, before: str, now: str, role: str) -> Iterator[Difference]:
    since = _since(now)
    if before[0] != now[0]:
        yield changed("file", path, "type", (_type(before), _type(now)), role=role, since=since)
        return
    if before[0] == "l":
        yield changed("file", path, "target", (before[2:], now[2:]), role=role)
        return
    old, cells = before.split(" "), now.split(" ")
    for name, place in (("mode", _MODE), ("uid", _UID), ("gid", _GID)):
        if old[place] != cells[place]:
            yield changed("file", path, name, (old[place], cells[place]), role=role, since=since)
    if before[0] != "f" or old[:_SIZE] != cells[:_SIZE]:
        return  # a change of mode or owner is also a change of the inode
    if old[_SIZE] != cells[_SIZE]:
        yield changed("file", path, "size", (f"{old[_SIZE]} bytes", f"{cells[_SIZE]} bytes"), role=role, since=since)
    elif old[_INODE] != cells[_INODE]:
        text = f"{path} was replaced by another file of the same size"
        yield changed("file", path, "inode", (old[_INODE], cells[_INODE]), role=role, since=since, text=text)
    elif old[_MTIME] != cells[_MTIME]:
        pair = (_time(old[_MTIME]), _time(cells[_MTIME]))
        text = f"{path} was written at {pair[1]}, recorded {pair[0]}; its size is the same"
        yield changed("file", path, "time", pair, role=role, since=since, text=text)
    elif old[_CTIME] != cells[_CTIME] and old[_NAMES] == cells[_NAMES]:
        # Another name of the file is a change of its inode too, and none of the file.
        pair = (_time(old[_CTIME]), _time(cells[_CTIME]))
        text = f"{path} was altered at {pair[1]} and has the size and the time that it had before"
        yield changed("file", path, "inode's time", pair, role=role, since=since, text=text)


def _type(row: str) -> str:
    return {"d": "folder", "f": "file", "l": "link"}.get(row[0], "other")


def _since(row: str) -> str:
    cells = row.split(" ")
    return _time(cells[_CTIME]) if row[0] == "f" and len(cells) == _FILE_CELLS else ""


def _time(nanoseconds: str) -> str:
    return iso(int(nanoseconds) / 1e9)
