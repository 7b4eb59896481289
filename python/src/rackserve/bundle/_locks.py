"""Lock files: what their texts pin, and by which hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from packaging.markers import Marker, default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_OPTION: Final = re.compile(r"\s+(?=--?[A-Za-z])")
_HASH: Final = re.compile(r"--hash[= ](?P<kind>[a-z0-9]+):(?P<digest>[0-9a-f]+)")
_SHA256_DIGITS: Final = 64
# Options of the whole file that name no package; any other (-r, -c, -e) brings packages that nothing here reads.
_GLOBAL: Final = re.compile(
    r"(-i|-f|--(index-url|extra-index-url|find-links|only-binary|no-binary|prefer-binary|pre|no-index|trusted-host|"
    r"require-hashes))(?=[\s=]|$)"
)
# The target of a bundle, as far as a marker asks for it and a recipe does not say.
_TARGET: Final = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "extra": "",
}
_PER_HOST: Final = ("python_full_version", "implementation_version", "platform_release", "platform_version")


@dataclass(frozen=True)
class Pin:
    """One pin of a lock.

    Attributes:
        name: normalised (PEP 503).
        hashes: the sha256 digests of its files, in hex.
        marker: where it is installed; None is everywhere.
        plain: whether its text is `name==version` with a normalised name and nothing else.
        lines: its first and last line, counted from 0.
    """

    name: str
    version: str
    hashes: frozenset[str]
    marker: Marker | None
    plain: bool
    lines: tuple[int, int]


def read_lock(lock: str) -> tuple[Pin, ...]:
    """Return every pin of a lock's text, in its order.

    Raises:
        InputError: naming the line that is no pin, or that pins a package once more.
    """
    found: dict[str, Pin] = {}
    for first, last, text in _logical_lines(lock):
        if _GLOBAL.match(text):
            continue
        pin = _pin(text, first, last)
        if pin.name in found:
            other = found[pin.name].lines[0] + 1
            raise InputError(
                f"line {first + 1} of the lock pins {pin.name} again, after line {other}; keep one of them"
            )
        found[pin.name] = pin
    return tuple(found.values())


def pins(lock: str) -> dict[str, str]:
    """Return name -> version of every pin of a lock's text; raises as `read_lock`."""
    return {pin.name: pin.version for pin in read_lock(lock)}


def hashes(lock: str) -> dict[str, frozenset[str]]:
    """Return name -> the sha256 digests, in hex, of every pin of a lock's text; raises as `read_lock`."""
    return {pin.name: pin.hashes for pin in read_lock(lock)}


def without(lock: str, names: Collection[str]) -> str:
    """Return a lock's text without the pins of the given names; raises as `read_lock`."""
    gone = {line for pin in read_lock(lock) if pin.name in names for line in range(pin.lines[0], pin.lines[1] + 1)}
    return "".join(text for number, text in enumerate(lock.splitlines(keepends=True)) if number not in gone)


def for_target(lock: str, python: str) -> str:
    """Return a lock's text as a target needs it: plain pins of what is installed there.

    pip evaluates markers for the Python that it runs on, whatever target it downloads for, and a host reads plain pins
    only. A lock of plain pins is returned as it is.

    Args:
        lock: the text.
        python: the target's Python, such as `3.11`.

    Raises:
        InputError: as `read_lock`, or when a marker asks for what only a host knows.
    """
    here = {name: str(value) for name, value in default_environment().items()}
    environment = {**here, **_TARGET, "python_version": python}
    lines: list[str] = lock.splitlines(keepends=True)
    for pin in read_lock(lock):
        if pin.plain:
            continue
        if pin.marker and (unknown := [name for name in _PER_HOST if name in str(pin.marker)]):
            raise InputError(
                f"line {pin.lines[0] + 1} of the lock asks for {unknown[0]}, which differs between hosts; "
                "make the lock for one Python, without this marker"
            )
        wanted = pin.marker is None or pin.marker.evaluate(environment)
        sums = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(pin.hashes))
        first, last = pin.lines
        lines[first : last + 1] = [f"{pin.name}=={pin.version}{sums}\n" if wanted else "", *[""] * (last - first)]
    return "".join(lines)


def _logical_lines(lock: str) -> Iterator[tuple[int, int, str]]:
    """Yield first and last line and text of every line that is no comment; a backslash joins the next one."""
    text, first = "", 0
    lines = lock.splitlines()
    for number, line in enumerate(lines):
        if not text:
            first = number
        if line.endswith("\\") and not line.lstrip().startswith("#") and number + 1 < len(lines):
            text += line[:-1] + " "
            continue
        text = _COMMENT.sub("", text + line.removesuffix("\\")).strip()
        if text:
            yield first, number, text
        text = ""


def _pin(text: str, first: int, last: int) -> Pin:
    requirement, *options = _OPTION.split(text)
    where = f"line {first + 1} of the lock"
    fix = "write it as name==version with --hash=sha256:…, as python/tools/refresh_locks.sh does"
    try:
        asked = Requirement(requirement)
    except InvalidRequirement as wrong:
        raise InputError(f"{where} is no pin: {requirement!r}; {fix}") from wrong
    exact = [one for one in asked.specifier if one.operator in ("==", "===") and not one.version.endswith(".*")]
    if asked.url or len(exact) != 1 or len(asked.specifier) != 1:
        raise InputError(f"{where} pins no version: {requirement!r}; {fix}")
    sums = [_HASH.fullmatch(option.strip()) for option in options]
    if None in sums:
        raise InputError(f"{where} has an option that is no hash: {text!r}; {fix}")
    digests = frozenset(
        match["digest"]
        for match in sums
        if match and match["kind"] == "sha256" and len(match["digest"]) == _SHA256_DIGITS
    )
    if sums and not digests:
        raise InputError(f"{where} has no sha256: {text!r}; {fix}")
    name = canonicalize_name(asked.name)
    return Pin(
        name, exact[0].version, digests, asked.marker, requirement == f"{name}=={exact[0].version}", (first, last)
    )
