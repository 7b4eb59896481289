"""Paths by pattern: `*` stands for a part of one name, `**` for any number of names."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ._host import Host

_MAGIC = re.compile(r"[*?]")


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    known = {"**/": "(?:.*/)?", "**": ".+", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(known.get(part) or re.escape(part) for part in parts))


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Return whether any of the patterns stands for a path."""
    return any(_regex(pattern).fullmatch(path) for pattern in patterns)


def below(path: str, patterns: Iterable[str]) -> bool:
    """Return whether a path, or a folder that it is in, is one of the patterns'."""
    names = path.split("/")
    parents = ["/".join(names[:count]) for count in range(2, len(names) + 1)]
    found = list(patterns)
    return any(matches(parent, found) for parent in parents)


def leads_to(folder: str, patterns: Iterable[str]) -> bool:
    """Return whether a pattern may stand for something inside of a folder."""
    depth = folder.count("/")
    for pattern in patterns:
        head = pattern.split("**")[0] if "**" in pattern else pattern
        names = head.split("/")
        if "**" in pattern and len(names) - 1 <= depth:
            if _regex(head + "**").fullmatch(f"{folder}/x"):
                return True
        elif len(names) - 1 > depth and _regex("/".join(names[: depth + 1])).fullmatch(folder):
            return True
    return False


def fixed(pattern: str) -> str:
    """Return the last folder of a pattern before its first `*`; of a plain path, the folder that it is in."""
    return os.path.dirname(_MAGIC.split(pattern)[0]) or "/"


def expand(host: Host, pattern: str, skip: list[str]) -> Iterator[str]:
    """Yield the paths on a host that a pattern stands for; what is below `skip` is left out, links lead nowhere."""
    if not _MAGIC.search(pattern):
        if os.path.lexists(host.at(pattern)) and not below(pattern, skip):
            yield pattern
        return
    for path, _ in walk(host, fixed(pattern), skip, lambda folder: leads_to(folder, [pattern])):
        if _regex(pattern).fullmatch(path):
            yield path


def walk(host: Host, top: str, skip: list[str], enter: Callable[[str], bool]) -> Iterator[tuple[str, bool]]:
    """Yield every path below a folder and whether it is a folder.

    Args:
        host: the host.
        top: the folder.
        skip: patterns of what is left out, with all below it.
        enter: decides whether a folder is read.
    """
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(host.at(folder)) as listed:
                found = sorted(listed, key=lambda one: one.name)
        except OSError:
            continue
        for one in found:
            path = f"{folder.rstrip('/')}/{one.name}"
            if matches(path, skip):
                continue
            is_folder = one.is_dir(follow_symlinks=False)
            yield path, is_folder
            if is_folder and enter(path):
                waiting.append(path)
