"""A bundle's contents: every file with its size and sha256, and which of them make a runtime, model or repository."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, ConfigDict, Field, StrictInt, ValidationError
from pydantic.dataclasses import dataclass as validated

from rackserve.errors import BundleError
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import MANIFEST, BundleRejected, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_STRICT: Final = ConfigDict(extra="forbid")


def _inside(path: str) -> str:
    if not verify_bundle.is_safe_path(path):
        raise ValueError("it is not a path inside the bundle")
    return path


_Path = Annotated[str, AfterValidator(_inside)]
_Repo = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


@validated(frozen=True, config=_STRICT)
class Runtime:
    """One installable vLLM: release id `<vllm>-<first 12 of the lock's sha256>`, lock file and wheel folder."""

    id: _Name
    vllm: _Name
    flavour: _Name
    python: _Name
    lock: _Path
    lock_sha256: str
    wheels: _Path


@validated(frozen=True, config=_STRICT)
class Model:
    """One Hugging Face snapshot: repository, 40-hex commit, folder in the bundle, size in bytes."""

    repo: _Repo
    revision: _Name
    path: _Path
    size: StrictInt


@validated(frozen=True, config=_STRICT)
class Repository:
    """One flat apt repository: the Debian release it is for, its folder, and the versions it carries by name."""

    release: _Name
    path: _Path
    packages: dict[str, str]


@validated(frozen=True, config=_STRICT)
class Driver:
    """One NVIDIA driver set: its apt repository, the packages that a host installs, and what the sources lacked."""

    release: _Name
    flavour: _Name
    version: str
    path: _Path
    kernels: tuple[str, ...]
    install: tuple[str, ...]
    packages: dict[str, str]
    missing: tuple[str, ...]


@validated(frozen=True, config=_STRICT)
class Controller:
    """The controller's part: the Python it is for, its folder, project and lock in the bundle, the project's commit."""

    python: _Name
    path: _Path
    project: _Path
    lock: _Path
    commit: str


@dataclass(frozen=True)
class Manifest:
    """The whole bundle. Equal contents give equal manifests: there is no date, user or host name in it."""

    name: str
    version: int
    expires: str | None
    runtimes: tuple[Runtime, ...]
    models: tuple[Model, ...]
    repositories: tuple[Repository, ...]
    drivers: tuple[Driver, ...]
    controller: Controller | None
    files: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together, each content counted once."""
        return sum(entry.size for entry in verify_bundle.transport_files(self.files))

    @property
    def id(self) -> str:
        """First 16 hex digits of the sha256 of the canonical text."""
        return verify_bundle.manifest_id(self.to_bytes())

    @property
    def terms(self) -> dict[str, Any]:
        """The fields that expiry and rollback protection check: name, version and last day."""
        return {"name": self.name, "version": self.version, "expires": self.expires}

    @property
    def model_paths(self) -> dict[tuple[str, str], str]:
        """Path in the bundle of every model and adapter, by repository and commit."""
        return {(model.repo, model.revision): model.path for model in self.models}

    def to_bytes(self) -> bytes:
        """Return the canonical text."""
        files = [entry._asdict() for entry in self.files]
        return verify_bundle.canonical({"format": verify_bundle.FORMAT, **asdict(self), "files": files})

    def under(self, prefixes: Iterable[str]) -> tuple[Entry, ...]:
        """Return the files that lie at or below any of the given paths."""
        chosen = tuple(prefixes)
        return tuple(e for e in self.files if any(e.path == p or e.path.startswith(f"{p}/") for p in chosen))


def read_manifest(bundle: Path) -> Manifest:
    """Read and check the manifest's own form; the files it names are checked elsewhere.

    Raises:
        BundleError: when there is no manifest, or it names an unsafe path.
    """
    if not (bundle / MANIFEST).exists():
        raise BundleError(
            f"no bundle at {bundle}: {MANIFEST} is missing; run `rackserve bundle import DIR`, or set stack_bundle_path"
        )
    try:
        return parse_manifest(verify_bundle.read_bounded(str(bundle), MANIFEST))
    except BundleRejected as refused:
        raise BundleError(f"{bundle}: {refused}") from refused


def parse_manifest(data: bytes) -> Manifest:
    """Turn a manifest's bytes into its typed form, which gives the same bytes again.

    Raises:
        BundleRejected: as `verify_bundle.parse_manifest` does, or when a field is absent, unknown or of another type.
    """
    raw = verify_bundle.parse_manifest(data)
    try:
        manifest = _typed(raw)
    except ValidationError as bad:
        first = bad.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _misused(f"{verify_bundle.excerpt(where)}: {first['msg']}") from bad
    except (KeyError, TypeError) as bad:
        raise _misused(verify_bundle.excerpt(str(bad))) from bad
    if manifest.to_bytes() != data:
        raise _misused("it has fields that are not known")
    return manifest


def _misused(what: str) -> BundleRejected:
    return BundleRejected(f"{MANIFEST} lacks or misuses a field ({what}); build the bundle with this rackserve")


def _typed(raw: dict[str, Any]) -> Manifest:
    return Manifest(
        name=raw["name"],
        version=raw["version"],
        expires=raw["expires"],
        runtimes=tuple(Runtime(**item) for item in raw["runtimes"]),
        models=tuple(Model(**item) for item in raw["models"]),
        repositories=tuple(Repository(**item) for item in raw["repositories"]),
        drivers=tuple(Driver(**item) for item in raw["drivers"]),
        controller=Controller(**raw["controller"]) if raw["controller"] else None,
        files=tuple(raw["files"]),
    )


def scan(folder: Path) -> tuple[Entry, ...]:
    """Return an entry for every file of a folder, sorted by path.

    Raises:
        BundleError: for anything that is not a regular file or a folder.
    """
    paths = sorted(_walk(folder))
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda name: sha256_of(folder / name), paths)
        return tuple(
            Entry(name, (folder / name).stat().st_size, digest) for name, digest in zip(paths, digests, strict=True)
        )


def _walk(folder: Path) -> list[str]:
    found = []
    for above, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = os.path.join(above, name)  # noqa: PTH118 - a hot loop over tens of thousands of names
            if os.path.islink(path):  # noqa: PTH114
                raise BundleError(f"{os.path.relpath(path, folder)} is a link; a bundle holds plain files only")
            if name in names:
                found.append(os.path.relpath(path, folder))
    return found


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex, read in chunks."""
    return verify_bundle.sha256_of(str(path))
