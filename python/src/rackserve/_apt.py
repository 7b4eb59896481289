"""Debian's mirrors of this machine, from its own apt configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rackserve._process import run
from rackserve.errors import RackserveError

if TYPE_CHECKING:
    from collections.abc import Iterable

SUITES: Final = {12: "bookworm", 13: "trixie"}
_ALIASES: Final = ("oldstable", "stable", "testing")
_OPTION: Final = re.compile(
    r'(Acquire::(?:https?::(?:Proxy|CaInfo|Timeout)|Check-Valid-Until|Check-Date|Retries)) "(.+)";'
)
_ONE_LINE: Final = re.compile(
    r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)"
)


@dataclass(frozen=True)
class Source:
    """One package source of apt's configuration."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str | None = None


def parse_one_line(text: str) -> list[Source]:
    """Read a `.list` file."""
    found = []
    for raw in text.splitlines():
        match = _ONE_LINE.fullmatch(raw.partition("#")[0].strip())
        if match:
            options = dict(word.partition("=")[::2] for word in (match["options"] or "").split())
            components = tuple(match["components"].split())
            found.append(Source(match["uri"], (match["suite"],), components, options.get("signed-by")))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Read a `.sources` file."""
    found = []
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", lines):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            else:
                key = line.partition(":")[0].strip().lower()
                fields[key] = line.partition(":")[2].strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        suites, components = tuple(fields.get("suites", "").split()), tuple(fields.get("components", "").split())
        found += [Source(uri, suites, components, fields.get("signed-by")) for uri in fields.get("uris", "").split()]
    return found


def mirror_lines(sources: Iterable[Source], release: int, components: tuple[str, ...] = ("main",)) -> list[str]:
    """Return the apt lines of a Debian release by this machine's mirrors; empty when it has none of Debian."""
    names = (*SUITES.values(), *_ALIASES)
    archive = {*names, *(f"{name}-updates" for name in names)}
    security = {*(f"{name}-security" for name in names), *(f"{name}/updates" for name in names)}
    suite = SUITES[release]
    lines = []
    for wanted, suites in ((archive, (suite, f"{suite}-updates")), (security, (f"{suite}-security",))):
        fitting = [source for source in sources if _is_debian(source) and wanted.intersection(source.suites)]
        fitting.sort(key=lambda source: "debian" not in source.uri)  # some other project's "bookworm main" comes last
        lines += [f"deb {fitting[0].uri} {name} {' '.join(components)}" for name in suites] if fitting else []
    return lines if lines and f" {suite} " in lines[0] else []


def _is_debian(source: Source) -> bool:
    return "main" in source.components and (source.signed_by is None or "debian-archive" in source.signed_by)


def machine_sources(folder: Path = Path("/etc/apt")) -> list[Source]:
    """Read every source that this machine's apt knows."""
    one_line = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))]
    found = [source for path in one_line if path.is_file() for source in parse_one_line(path.read_text())]
    for path in sorted((folder / "sources.list.d").glob("*.sources")):
        found += parse_deb822(path.read_text())
    return found


def machine_options() -> list[str]:
    """Return how this machine's apt reaches its mirrors (proxy, certificates), as apt configuration lines."""
    return parse_options(run(["apt-config", "dump"], error=RackserveError, what="read the configuration of apt"))


def parse_options(dump: str) -> list[str]:
    """Pick the lines that concern the way to the mirrors from `apt-config dump`."""
    matches = (_OPTION.fullmatch(line.strip()) for line in dump.splitlines())
    return [f'{match[1]} "{match[2]}";' for match in matches if match]
