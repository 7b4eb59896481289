"""Packages that an operator supplies as files: pinned by hash, and complete within their repository."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Final

from rackserve._process import run
from rackserve.bundle._debs import local_source, read_sources
from rackserve.bundle._manifest import sha256_of
from rackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_OWNER: Final = re.compile(r"Package (?P<name>\S+) version \S+ has an unmet dep:")
_NEED: Final = re.compile(r" (?:Pre)?Depends: (?P<what>.+)")


def add_supplied(deb: Path, sha256: str, into: Path) -> str:
    """Put an operator's .deb into a repository that is indexed afterwards.

    Args:
        deb: the file; it is read only once its hash is right.
        sha256: 64 hex digits that the operator pinned.
        into: the repository's folder.

    Returns:
        The package's name.

    Raises:
        InputError: when the file is missing, has another hash or is no package, or when the repository has other bytes
            of that name and version.
    """
    if not deb.is_file():
        raise InputError(f"the supplied package {deb} is missing; put the file there, or take it out of the recipe")
    found = sha256_of(deb)
    if found != sha256.lower():
        raise InputError(f"the supplied package {deb} is not the one pinned: its sha256 is {found}, wanted {sha256}")
    show = ["dpkg-deb", "--show", "--showformat=${Package}\\t${Version}\\t${Architecture}", str(deb)]
    name, version, architecture = run(show, error=InputError, what=f"read the package {deb}").split("\t")
    target = into / f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
    if target.exists() and sha256_of(target) != found:
        raise InputError(f"{deb} is {name} {version}, which the sources have too with other bytes; supply one of them")
    into.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(deb, target)
    return name


def unmet_dependencies(repository: Path, scratch: Path) -> dict[str, tuple[str, ...]]:
    """Return what packages of an indexed repository need and no package of it gives, as apt sees it.

    Returns:
        name -> needs, such as `libx (>= 2)` or `gcc | c-compiler`; empty when the repository is complete.

    Raises:
        BundleError: when apt does not accept the repository.
    """
    view = read_sources([local_source(repository)], scratch)
    return parse_unmet(view.cache("unmet", "--important", what=f"look for unmet dependencies in {repository}"))


def parse_unmet(text: str) -> dict[str, tuple[str, ...]]:
    """Read the output of `apt-cache unmet`."""
    found: dict[str, tuple[str, ...]] = {}
    owner = ""
    for line in text.splitlines():
        if match := _OWNER.match(line):
            owner = match["name"]
        elif need := _NEED.match(line):
            found[owner] = (*found.get(owner, ()), need["what"])
    return found
