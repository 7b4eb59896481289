"""A flat apt repository with the whole closure of the packages that the roles install."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rackserve._process import run
from rackserve.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_STANZA: Final = re.compile(r"^Package: (?P<name>\S+)$.*?^Version: (?P<version>\S+)$", re.MULTILINE | re.DOTALL)


def build_repository(sources: Sequence[str], packages: Sequence[str], into: Path, scratch: Path) -> dict[str, str]:
    """Download packages with all they depend on, and index them for apt.

    The closure is resolved against an empty system, so it is complete for any host of that release. Recommended
    packages are left out.

    Args:
        sources: lines of a sources.list for the release wanted.
        packages: names of packages.
        into: the repository's folder.
        scratch: a folder for apt's lists and caches.

    Returns:
        name -> version of every package in the repository.

    Raises:
        BundleError: when the sources cannot be read or a package is not in them.
    """
    into.mkdir(parents=True, exist_ok=True)
    for folder in ("lists/partial", "archives/partial"):
        (scratch / folder).mkdir(parents=True, exist_ok=True)
    (scratch / "status").write_text("", encoding="utf-8")
    (scratch / "sources.list").write_text("\n".join(sources) + "\n", encoding="utf-8")
    options = {
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": "-",
        "Dir::State::lists": scratch / "lists",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch,
        "Dir::Cache::archives": scratch / "archives",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
    }
    apt = ["apt-get", "--quiet", *(f"-o{key}={value}" for key, value in options.items())]
    run([*apt, "update", "--error-on=any"], error=BundleError, what="read the Debian package lists")
    run([*apt, "install", "--yes", "--download-only", *packages], error=BundleError, what="download Debian packages")
    for deb in sorted((scratch / "archives").glob("*.deb")):
        deb.rename(into / deb.name)
    return index_repository(into)


def index_repository(repository: Path) -> dict[str, str]:
    """Write `Packages` and `Release` for a folder of .deb files and return name -> version.

    Raises:
        BundleError: when apt-ftparchive is missing or cannot read a package.
    """
    index = run(["apt-ftparchive", "packages", "."], cwd=repository, error=BundleError, what="index the repository")
    (repository / "Packages").write_text(index, encoding="utf-8")
    release = run(
        ["apt-ftparchive", "-oAPT::FTPArchive::Release::Suite=rackserve", "release", "."],
        cwd=repository,
        error=BundleError,
        what="write the repository's Release file",
    )
    undated = re.sub(r"^Date: .*\n", "", release, flags=re.MULTILINE)
    (repository / "Release").write_text(undated, encoding="utf-8")
    return {match["name"]: match["version"] for match in _STANZA.finditer(index)}
