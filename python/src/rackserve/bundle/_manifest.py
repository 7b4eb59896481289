"""What a bundle holds: every file with its size and sha256, and which of them make a runtime, a model, a repository."""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
_CHUNK: Final = 1 << 20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """One file: its path inside the bundle (POSIX, relative), its size in bytes, its sha256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Runtime:
    """One installable vLLM: release id `<vllm>-<first 12 of the lock's sha256>`, lock file and wheel folder."""

    id: str
    vllm: str
    flavour: str
    python: str
    lock: str
    lock_sha256: str
    wheels: str


@dataclass(frozen=True)
class Model:
    """One Hugging Face snapshot: repository, 40-hex commit, folder in the bundle, size in bytes."""

    repo: str
    revision: str
    path: str
    size: int


@dataclass(frozen=True)
class Repository:
    """One flat apt repository: the Debian release it is for, its folder, and the versions it carries by name."""

    release: str
    path: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """The whole bundle. Equal contents give equal manifests: there is no date, user or host name in it."""

    runtimes: tuple[Runtime, ...]
    models: tuple[Model, ...]
    repositories: tuple[Repository, ...]
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    @property
    def id(self) -> str:
        """First 16 hex digits of the sha256 of the canonical text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Return the canonical text: sorted keys, files sorted by path, one trailing newline."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, indent=1) + "\n"

    def under(self, prefixes: tuple[str, ...]) -> tuple[FileEntry, ...]:
        """Return the files that lie at or below any of the given paths."""
        return tuple(e for e in self.files if any(e.path == p or e.path.startswith(f"{p}/") for p in prefixes))


def read_manifest(bundle: Path) -> Manifest:
    """Read and check the manifest's own form; the files it names are checked by `problems`.

    Raises:
        BundleError: when there is no manifest, or it is not one of format 1 with safe, unique paths.
    """
    path = bundle / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"no bundle at {bundle}: {MANIFEST} is missing; run `rackserve bundle import DIR`, or set stack_bundle_path"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as bad:
        raise BundleError(f"{path} is not JSON ({bad}); import the bundle again") from bad
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise BundleError(f"{path} has format {found!r}; this rackserve reads format {FORMAT}")
    try:
        manifest = _parse(raw)
    except (KeyError, TypeError) as bad:
        raise BundleError(f"{path} lacks or misuses a field ({bad}); import the bundle again") from bad
    _refuse_unsafe(path, manifest)
    return manifest


def _parse(raw: dict[str, Any]) -> Manifest:
    return Manifest(
        runtimes=tuple(Runtime(**item) for item in raw["runtimes"]),
        models=tuple(Model(**item) for item in raw["models"]),
        repositories=tuple(Repository(**item) for item in raw["repositories"]),
        files=tuple(FileEntry(**item) for item in raw["files"]),
    )


def _refuse_unsafe(path: Path, manifest: Manifest) -> None:
    seen: set[str] = set()
    for entry in manifest.files:
        parts = entry.path.split("/")
        if entry.path.startswith("/") or "\\" in entry.path or any(part in {"", ".", ".."} for part in parts):
            raise BundleError(f"{path} names the unsafe path {entry.path!r}; this bundle was tampered with")
        if entry.path.lower() in seen:
            raise BundleError(f"{path} names {entry.path!r} twice; this bundle was tampered with")
        if entry.size < 0 or not _SHA256.fullmatch(entry.sha256):
            raise BundleError(f"{path} has no usable size and sha256 for {entry.path!r}; import the bundle again")
        seen.add(entry.path.lower())


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def scan(bundle: Path) -> tuple[FileEntry, ...]:
    """Return an entry for every file of a folder but the manifest, sorted by path.

    Raises:
        BundleError: for anything that is not a regular file or a folder.
    """
    paths = sorted(_walk(bundle))
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda name: sha256_of(bundle / name), paths)
        return tuple(
            FileEntry(name, (bundle / name).stat().st_size, digest) for name, digest in zip(paths, digests, strict=True)
        )


def _walk(bundle: Path) -> list[str]:
    found = []
    for folder, folders, names in os.walk(bundle):
        for name in [*folders, *names]:
            path = os.path.join(folder, name)  # noqa: PTH118 - a hot loop over tens of thousands of names
            relative = os.path.relpath(path, bundle)
            if os.path.islink(path):  # noqa: PTH114
                raise BundleError(f"{relative} in the bundle is a link; a bundle holds plain files only")
            if name in names and relative != MANIFEST:
                found.append(relative)
    return found


def problems(bundle: Path, manifest: Manifest, on_file: Callable[[FileEntry], None] = lambda _: None) -> list[str]:
    """Compare a bundle with its manifest, byte for byte, and return a sentence for every difference.

    Args:
        bundle: the bundle's folder.
        manifest: what it should hold.
        on_file: called after each file was read, for progress.
    """
    found = [
        f"{name} is in the bundle but not in its manifest"
        for name in sorted(set(_walk(bundle)) - {entry.path for entry in manifest.files})
    ]

    def check(entry: FileEntry) -> str | None:
        path = bundle / entry.path
        try:
            size = path.lstat().st_size
            if size != entry.size:
                return f"{entry.path} has {size} bytes, its manifest says {entry.size}"
            digest = sha256_of(path)
        except FileNotFoundError:
            return f"{entry.path} is missing"
        on_file(entry)
        return None if digest == entry.sha256 else f"{entry.path} was altered: its sha256 is not the manifest's"

    with ThreadPoolExecutor() as pool:
        found.extend(problem for problem in pool.map(check, manifest.files) if problem)
    return found
