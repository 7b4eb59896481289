"""Why the index has no wheel for a target: pip says `from versions: none`, and its log has each file and its tags."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

_WANTED: Final = re.compile(r"No matching distribution found for (?P<name>[\w.-]+)==(?P<version>[^\s;]+)")
# pip 26.3, _internal/index/package_finder.py: why a link of the index is not a candidate, and the link.
_SKIPPED: Final = re.compile(r"Skipping link: .*?: (?:\S+/)?(?P<file>[^/\s]+\.(?:whl|tar\.gz|zip))(?:[#\s]|$)")
_GLIBC: Final = re.compile(r"manylinux_2_(\d+)_\w+")
_SHOWN: Final = 4


def glibc_of(wheel: str) -> int:
    """Return the minor version of glibc 2 that a wheel needs, by its file name; 0 when it names none (PEP 600)."""
    return min((int(minor) for minor in _GLIBC.findall(wheel.rpartition("-")[2].replace(".", " "))), default=0)


def explain(log: str, target: str, glibc: int) -> str | None:
    """Return a sentence for a pin that no wheel of the index fits, None when pip failed of something else.

    Args:
        log: pip's own (`pip --log`).
        target: what was asked for, for the message.
        glibc: the minor version of glibc 2 on the target.
    """
    wanted = _WANTED.search(log)
    if not wanted:
        return None
    name, version = wanted["name"], wanted["version"]
    files = dict.fromkeys(unquote(found["file"]) for found in _SKIPPED.finditer(log))
    wheels = [file for file in files if file.endswith(".whl") and _is_of(file, name, version)]
    newer = sorted({minor for file in wheels if (minor := glibc_of(file)) > glibc})
    there = [_described(file, glibc) for file in sorted(wheels, key=lambda file: (glibc_of(file) <= glibc, file))]
    if len(there) > _SHOWN:
        there = [*there[:_SHOWN], f"{len(there) - _SHOWN} wheels more"]
    if any(not file.endswith(".whl") and _is_of(file, name, version) for file in files):
        there.append("a source archive, which is never built")
    remedy = f", or use a target with glibc 2.{newer[0]}" if newer else ""
    return (
        f"{name} {version} has no wheel for {target} with glibc 2.{glibc}; the index has "
        f"{', '.join(there) or 'no file of this version'}; pin a version that has one{remedy}"
    )


def _is_of(file: str, name: str, version: str) -> bool:
    plain = re.sub(r"[-_.]+", "_", file).lower()
    return plain.startswith(re.sub(r"[-_.]+", "_", f"{name}-{version}").lower() + "_")


def _described(wheel: str, glibc: int) -> str:
    tags = "-".join(wheel.removesuffix(".whl").split("-")[-3:])
    needs = glibc_of(wheel)
    return f"{tags} (needs glibc 2.{needs})" if needs > glibc else tags
