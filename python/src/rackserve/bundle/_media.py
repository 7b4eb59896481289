"""A bundle for transport: split in parts of a given size, or without the contents that the receiving site has."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from rackserve.bundle._manifest import Manifest, read_manifest
from rackserve.errors import BundleError, InputError
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import MANIFEST, PARTS, SIGNATURE, Entry, attestations, transport_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class _Cutter(io.RawIOBase):
    """Writes one stream as numbered files of at most `size` bytes."""

    def __init__(self, folder: Path, stem: str, size: int) -> None:
        super().__init__()
        self.parts: list[Entry] = []
        self._folder, self._stem, self._size = folder, stem, size
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        view = memoryview(data)
        while view:
            if self._file is None:
                path = self._folder / f"{self._stem}.{len(self.parts) + 1:03d}"
                self._file, self._digest, self._written = path.open("wb"), hashlib.sha256(), 0
            piece = view[: self._size - self._written]
            self._file.write(piece)
            self._digest.update(piece)
            self._written += len(piece)
            view = view[len(piece) :]
            if self._written == self._size:
                self.finish()
        return len(data)

    def finish(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            name = f"{self._stem}.{len(self.parts) + 1:03d}"
            self.parts.append(Entry(name, self._written, self._digest.hexdigest()))


def sources(bundle: Path, manifest: Manifest) -> dict[str, Path]:
    """Return the files to transport, the manifest and its signature first: name in the transport layout -> file.

    Args:
        bundle: a bundle in transport layout, a difference, or an imported (unpacked) one.
        manifest: its manifest.

    Raises:
        BundleError: when the bundle is not signed.
    """
    if not (bundle / SIGNATURE).is_file():
        raise BundleError(f"{bundle} is not signed; sign it with `rackserve bundle sign`")
    found = {name: bundle / name for name in [MANIFEST, SIGNATURE, *sorted(attestations(str(bundle)))]}
    by_digest = {entry.sha256: bundle / entry.path for entry in manifest.files}
    is_tree = not (bundle / "blobs").is_dir()
    for entry in transport_files(manifest.files):
        path = by_digest[entry.sha256] if is_tree else bundle / entry.path
        if path.exists():
            found[entry.path] = path
    return found


def split(bundle: Path, size: int, into: Path, on_file: Callable[[Entry], None] = lambda _: None) -> list[Entry]:
    """Write a bundle, or a difference, as parts that each verify; equal bundles give equal parts.

    The parts are pieces of one tar archive: where rackserve is not at hand, `cat NAME.0* | tar -x` gives the bundle's
    folder again.

    Args:
        bundle: its folder; or an imported one.
        size: largest size of a part in bytes.
        into: a folder that does not exist.
        on_file: called after each file.

    Returns:
        The parts, with their names as paths.

    Raises:
        InputError: when the folder exists, or the size is too small.
        BundleError: when the bundle cannot be read, or is not signed.
    """
    if into.exists():
        raise InputError(f"{into} exists; name a new folder, or remove that one")
    if size < verify_bundle.CHUNK:
        raise InputError(f"a part of {size} bytes is too small; give at least 1 MB")
    manifest = read_manifest(bundle)
    into.mkdir(parents=True)
    stem = f"{manifest.name}-{manifest.version}-{manifest.id[:8]}"
    cutter = _Cutter(into, stem, size)
    with tarfile.open(fileobj=cutter, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for name, path in sources(bundle, manifest).items():
            member = tarfile.TarInfo(name)
            member.size = path.stat().st_size
            with path.open("rb") as source:
                archive.addfile(member, source)
            on_file(Entry(name, member.size, ""))
    cutter.finish()
    listed = {"id": manifest.id, "parts": [{"name": p.path, "size": p.size, "sha256": p.sha256} for p in cutter.parts]}
    (into / f"{stem}{PARTS}").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return cutter.parts


@dataclass(frozen=True)
class Difference:
    """The contents that the receiving site lacks: `size` of `full` bytes, in `files` files."""

    manifest: Manifest
    files: int
    size: int
    full: int


def diff(old: Path, new: Path, into: Path) -> Difference:
    """Write the new bundle without the contents that the old one has.

    The receiving site imports it like any other: the rest is taken from the bundles imported there, and every byte of
    the whole is compared with the signed manifest.

    Args:
        old: a bundle's folder, or its `manifest.json` alone.
        new: the folder of a bundle in transport layout.
        into: a folder that does not exist.

    Raises:
        InputError: when the folder exists.
        BundleError: when one of the bundles cannot be read.
    """
    if into.exists():
        raise InputError(f"{into} exists; name a new folder, or remove that one")
    held = {entry.sha256 for entry in read_manifest(old.parent if old.name == MANIFEST else old).files}
    manifest = read_manifest(new)
    transport = transport_files(manifest.files)
    chosen = [entry for entry in transport if entry.sha256 not in held]
    known = {entry.path for entry in transport if entry.sha256 in held}
    for name, path in sources(new, manifest).items():
        if name not in known:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            verify_bundle.place(str(path), str(into / name))
    return Difference(manifest, len(chosen), sum(e.size for e in chosen), sum(e.size for e in transport))
