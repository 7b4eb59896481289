"""A bundle that was split for media: its parts are pieces of one tar archive, and nothing of it is trusted."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from typing import IO, TYPE_CHECKING, Any

from ._files import CHUNK, DRAFT, MAX_MANIFEST, file_problem, read_bounded, sha256_of
from ._manifest import (
    MANIFEST,
    PARTS,
    SIGNATURE,
    BundleRejected,
    Entry,
    excerpt,
    is_safe_path,
    is_sha256,
    is_size,
    load_json,
    transport_files,
)
from ._signature import MAX_SIGNED, is_attestation

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_LIST = 16 << 20
_MAX_ATTESTATIONS = 32


class _PlainMember(tarfile.TarInfo):
    """A member of an archive that is a plain file; any other kind is rejected before its header is acted upon."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _PlainMember:
        """Read one header, as tarfile does; extended headers, links, devices and sparse files are rejected."""
        member = super().frombuf(buf, encoding, errors)
        if member.type != tarfile.REGTYPE or member.mode & (stat.S_ISUID | stat.S_ISGID) or member.size < 0:
            raise BundleRejected(
                f"{excerpt(member.name)} in the parts is not a plain file (kind {member.type!r}, mode {member.mode:o})"
            )
        return member


class PartStream(io.RawIOBase):
    """The parts of a split bundle, read as one archive."""

    def __init__(self, folder: str, names: list[str]) -> None:
        super().__init__()
        self._paths = [os.path.join(folder, name) for name in names]
        self._open: IO[bytes] | None = None

    def readable(self) -> bool:
        """Return true."""
        return True

    def close(self) -> None:
        """Close the part that is open."""
        if self._open is not None:
            self._open.close()
        super().close()

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer; Python 3.9 has no name for its type
        """Fill a buffer from the current part, or from the next one at its end."""
        while True:
            if self._open is None:
                if not self._paths:
                    return 0
                self._open = open(self._paths.pop(0), "rb")  # noqa: SIM115
            size = self._open.readinto(buffer)  # type: ignore[attr-defined]
            if size:
                return int(size)
            self._open.close()
            self._open = None


def open_parts(folder: str, parts: list[Entry]) -> IO[bytes]:
    """Open the archive that was split into parts, for reading."""
    return io.BufferedReader(PartStream(folder, [part.path for part in parts]), CHUNK)


def read_parts(folder: str) -> list[Entry] | None:
    """Return the parts of a split bundle in their order, or None where the folder holds no `*.parts.json`.

    Raises:
        BundleRejected: when the list is invalid.
    """
    lists = sorted(name for name in os.listdir(folder) if name.endswith(PARTS)) if os.path.isdir(folder) else []
    if not lists:
        return None
    if len(lists) > 1:
        shown = excerpt(", ".join(lists))
        raise BundleRejected(f"{folder} holds the parts of {len(lists)} bundles: {shown}; keep them apart")
    name = lists[0] if is_safe_path(lists[0]) else excerpt(lists[0])
    raw = load_json(read_bounded(folder, lists[0], _MAX_LIST), name)
    listed = raw.get("parts") if isinstance(raw, dict) else None
    if not isinstance(listed, list):
        raise BundleRejected(f"{name} is not a list of parts ({excerpt(raw)}); copy it again")
    if not listed:
        raise BundleRejected(f"{name} names no parts; copy it again")
    return [_part(name, item) for item in listed]


def _part(list_name: str, item: Any) -> Entry:  # noqa: ANN401 - any JSON
    if isinstance(item, dict):
        name, size, sha256 = item.get("name"), item.get("size"), item.get("sha256")
        if isinstance(name, str) and is_safe_path(name) and "/" not in name and is_size(size) and is_sha256(sha256):
            return Entry(name, size, sha256)  # type: ignore[arg-type]
    raise BundleRejected(
        f"{list_name} has {excerpt(item)}, which is not a part's name in this folder, its size and its sha256; "
        "copy it again"
    )


def part_problems(folder: str, parts: list[Entry]) -> list[str]:
    """Return a sentence for every part that is missing or damaged."""
    return [problem for part in parts if (problem := file_problem(folder, part))]


def extract(
    stream: IO[bytes],
    dest: str,
    trust: Callable[[bytes, bytes], dict[str, Any]],
    on_file: Callable[[Entry], None] = lambda _: None,
) -> None:
    """Extract a bundle's archive into the transport layout; files of an earlier, interrupted run are kept.

    The manifest and its signature come first, and nothing else is written before they are trusted. After that only the
    contents that the manifest names are, each under its own hash, and only once its bytes have that hash. Attestations
    are written as they are: whoever reads them verifies them.

    Args:
        stream: the archive.
        dest: the folder.
        trust: called with the bytes of the manifest and of its signature; it returns the parsed manifest or rejects it.
        on_file: called after each file.

    Raises:
        BundleRejected: for a member of another kind, name, size or content, a duplicate, or bytes after the archive.
        OSError: when the disk is full.
    """
    os.makedirs(dest, exist_ok=True)
    attested: set[str] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_PlainMember) as archive:
            members = iter(archive)
            head = [_head_member(archive, next(members, None), name) for name in (MANIFEST, SIGNATURE)]
            manifest = trust(head[0], head[1])
            for name, data in zip((MANIFEST, SIGNATURE), head):
                _write(os.path.join(dest, name), data)
            wanted = {entry.path: entry for entry in transport_files(manifest["files"])}
            for member in members:
                if is_attestation(member.name) and member.name not in attested and len(attested) < _MAX_ATTESTATIONS:
                    attested.add(member.name)
                    _write(os.path.join(dest, member.name), _member_bytes(archive, member, MAX_SIGNED))
                else:
                    _write_blob(archive, member, dest, wanted)
                    on_file(Entry(member.name, member.size, ""))
            _reject_trailing_bytes(archive)
    except (tarfile.TarError, EOFError, ValueError) as bad:
        raise BundleRejected(f"the parts are not a whole archive ({bad}); copy them again") from bad


def _head_member(archive: tarfile.TarFile, member: tarfile.TarInfo | None, name: str) -> bytes:
    if member is None or member.name != name:
        raise BundleRejected(f"the parts do not begin with {MANIFEST} and {SIGNATURE}; this is not a bundle")
    return _member_bytes(archive, member, MAX_MANIFEST if name == MANIFEST else MAX_SIGNED)


def _member_bytes(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    if member.size > most:
        raise BundleRejected(f"{member.name} has {member.size} bytes in the parts; at most {most} are read")
    source = archive.extractfile(member)
    return source.read() if source else b""


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as target:
        os.fchmod(target.fileno(), 0o644)
        target.write(data)


def _write_blob(archive: tarfile.TarFile, member: tarfile.TarInfo, dest: str, wanted: dict[str, Entry]) -> None:
    entry = wanted.pop(member.name, None)
    if entry is None:
        raise BundleRejected(f"{excerpt(member.name)} is in the parts but not in the manifest, or occurs twice")
    if member.size != entry.size:
        raise BundleRejected(f"{member.name} has {member.size} bytes in the parts, its manifest says {entry.size}")
    if not file_problem(dest, entry):
        return
    path = os.path.join(dest, member.name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    draft = f"{path}{DRAFT}"
    source = archive.extractfile(member)
    with open(draft, "wb") as target:
        os.fchmod(target.fileno(), 0o644)
        shutil.copyfileobj(source, target, CHUNK)  # type: ignore[arg-type]
        target.flush()
        os.fsync(target.fileno())
    if sha256_of(draft) != entry.sha256:
        os.unlink(draft)
        raise BundleRejected(f"{member.name} was altered: its sha256 is not the manifest's")
    os.replace(draft, path)


def _reject_trailing_bytes(archive: tarfile.TarFile) -> None:
    """Reject bytes after the end of the archive; zeros fill its last record."""
    while archive.fileobj is not None and (rest := archive.fileobj.read(CHUNK)):
        if rest.strip(b"\0"):
            raise BundleRejected("the parts have bytes after the end of the archive; copy them again")
