"""A flat, signed apt repository with the whole closure of the packages that hosts install."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rackserve._process import run
from rackserve.bundle._archive_key import PUBLIC_KEY, clear_sign, export_public_key, own_archive_key
from rackserve.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rackserve.bundle._progress import Progress

_STANZA: Final = re.compile(r"^Package: (?P<name>\S+)$.*?^Version: (?P<version>\S+)$", re.MULTILINE | re.DOTALL)
# 'https://host/pool/n/name.deb' name_1.0_amd64.deb 12345 SHA256:...
_URI: Final = re.compile(r"^'.*' \S+\.deb (?P<size>\d+)\b", re.MULTILINE)
_WRITTEN: Final = ("Packages", "Release", "Release.gpg", "InRelease", PUBLIC_KEY)
# apt warns of a Release file without a date; of one date in all of them it never thinks that one is older than another.
_DATE: Final = "Date: Wed, 01 Jan 2020 00:00:00 UTC\n"
_INDEX: Final = [
    "apt-ftparchive",
    *(f"-oAPT::FTPArchive::{weak_or_spare}=false" for weak_or_spare in ("MD5", "SHA1", "SHA512")),
    "-oAPT::FTPArchive::Release::Suite=rackserve",
]


@dataclass(frozen=True)
class AptView:
    """apt with the given sources on an empty system: nothing of this machine's own lists or packages is seen."""

    options: tuple[str, ...]
    environment: dict[str, str]
    scratch: Path

    def prefer(self, preferences: str) -> None:
        """Say which versions apt takes from now on, in the words of apt_preferences(5)."""
        (self.scratch / "preferences").write_text(preferences, encoding="utf-8")

    def get(self, *words: str, what: str) -> str:
        """Run apt-get; what it prints is returned."""
        return run(["apt-get", "--quiet", *self.options, *words], env=self.environment, error=BundleError, what=what)

    def cache(self, *words: str, what: str) -> str:
        """Run apt-cache; what it prints is returned."""
        return run(["apt-cache", "--quiet", *self.options, *words], env=self.environment, error=BundleError, what=what)


def read_sources(sources: Sequence[str], scratch: Path) -> AptView:
    """Let apt read package lists.

    Args:
        sources: lines of a sources.list for the release wanted.
        scratch: a folder for apt's lists and caches.

    Raises:
        BundleError: when a source cannot be read or its signature is wrong.
    """
    for folder in ("lists/partial", "archives/partial"):
        (scratch / folder).mkdir(parents=True, exist_ok=True)
    # From a `file:` apt takes packages where they lie; by `copy:` they come to the archives, as from anywhere else.
    lines = "".join(re.sub(r"\sfile:", " copy:", source) + "\n" for source in sources)
    files = {"status": "", "sources.list": lines, "preferences": ""}
    options = {
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": scratch / "preferences",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": scratch / "lists",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch,
        "Dir::Cache::archives": scratch / "archives",
        "APT::Install-Recommends": "false",
        "APT::Get::AllowUnauthenticated": "false",
        "APT::Sandbox::User": "root",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
    }
    for name, text in files.items():
        (scratch / name).write_text(text, encoding="utf-8")
    # By command line: what stands in a file named by $APT_CONFIG yields to this machine's own settings (apt.conf(5)).
    words = tuple(f"-o{key}={value}" for key, value in options.items())
    view = AptView(words, {**os.environ, "LC_ALL": "C"}, scratch)
    view.get("update", "--error-on=any", what="read the Debian package lists")
    return view


def local_source(repository: Path) -> str:
    """Return the line of a sources.list for a repository that `index_repository` wrote."""
    folder = repository.resolve()
    return f"deb [signed-by={folder / PUBLIC_KEY}] file:{folder} ./"


def download(view: AptView, packages: Sequence[str], into: Path, progress: Progress) -> None:
    """Fetch packages with all they depend on, Recommends left out, complete for any host of that release.

    Args:
        view: where they come from.
        packages: names, or `name=version`.
        into: the repository's folder; a package that is in it already is kept.
        progress: called with how much has arrived.

    Raises:
        BundleError: when a package, or one that it needs, is not in the sources.
    """
    into.mkdir(parents=True, exist_ok=True)
    wanted, what = ("install", "--yes", "--download-only", *packages), "download Debian packages"
    sizes = [int(match["size"]) for match in _URI.finditer(view.get("--print-uris", *wanted, what=what))]
    archives = view.scratch / "archives"
    with progress.filling(archives, size=sum(sizes), files=len(sizes)):
        view.get(*wanted, what=what)
    for deb in sorted(archives.glob("*.deb")):
        shutil.move(deb, into / deb.name)


def build_repository(
    sources: Sequence[str],
    packages: Sequence[str],
    into: Path,
    scratch: Path,
    progress: Progress,
    *,
    key: Path | None = None,
) -> dict[str, str]:
    """Download packages with all they depend on, and make a signed repository of them.

    Args:
        sources: lines of a sources.list for the release wanted.
        packages: names of packages.
        into: the repository's folder.
        scratch: a folder for apt's lists and caches.
        progress: called with how much has arrived.
        key: the archive key's folder; None is this controller's own key.

    Returns:
        name -> version of every package in the repository.

    Raises:
        BundleError: when the sources cannot be read or a package is not in them.
    """
    download(read_sources(sources, scratch), packages, into, progress)
    return index_repository(into, key)


def index_repository(repository: Path, key: Path | None = None) -> dict[str, str]:
    """Write `Packages`, `InRelease` and the public key for a folder of .deb files; return name -> version.

    There is no `Release` beside `InRelease`: apt has one way to trust the folder, and equal packages signed by an equal
    key make equal files.

    Raises:
        BundleError: when apt-ftparchive is missing or cannot read a package, or the key cannot sign.
    """
    key = key or own_archive_key()
    for name in _WRITTEN:
        (repository / name).unlink(missing_ok=True)
    index = run([*_INDEX, "packages", "."], cwd=repository, error=BundleError, what="index the repository")
    (repository / "Packages").write_text(index, encoding="utf-8")
    release = run([*_INDEX, "release", "."], cwd=repository, error=BundleError, what="describe the repository")
    dated = re.sub(r"^Date: .*\n", _DATE, release, flags=re.MULTILINE)
    (repository / "InRelease").write_text(clear_sign(key, dated), encoding="utf-8")
    export_public_key(key, repository / PUBLIC_KEY)
    return {match["name"]: match["version"] for match in _STANZA.finditer(index)}
