#!/usr/bin/env python3
"""Verify a bundle of rackserve: its signature, its expiry, and every byte of it.

This one file needs Python 3.9, its standard library and `ssh-keygen`, so that it runs on a bare host. A bundle has one
of two layouts: *transport* (`blobs/ab/<sha256>`, each content once) or *unpacked* (files by their paths). Both have
`manifest.json`, which names every path with its size and sha256, and `manifest.json.sig`.

    verify_bundle.py check  BUNDLE --signers FILE [--revoked FILE]    exit 0, or 1 with the reasons
    verify_bundle.py unpack BUNDLE DEST --signers FILE                check, then write the unpacked layout

Split for media, a bundle is a folder of parts (`NAME.001`, ...) and `NAME.parts.json`; both commands read that too.

A signers file is one of `ssh-keygen`'s ALLOWED SIGNERS: `name namespaces="rackserve-bundle" ssh-ed25519 AAAA...`. Where
there is no ssh-keygen yet, `--manifest-sha256 HEX`, from another channel than the bundle, replaces it.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import datetime as dt
import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
HOST_PARTS = "host-parts.json"
VERIFIER = "verify_bundle.py"
ATTESTATIONS = "attestations"
NAMESPACE = "rackserve-bundle"
ATTESTED = "rackserve-attestation"
FORMAT = 2
CHUNK = 1 << 20
MAX_MANIFEST = 64 << 20
MAX_PATH = 400
PARTS = ".parts.json"
SHOWN = 10

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PART = re.compile(r"[A-Za-z0-9._+~@%=,!-]{1,200}")  # "!" ends the epoch in a wheel's name (PEP 440)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"key (SHA256:\S+)")


class BundleRejected(Exception):  # noqa: N818 - a verdict, not an error of the program
    """A bundle failed verification; the message is the reason."""


class Entry(NamedTuple):
    """One file: its path inside the bundle (POSIX, relative), its size in bytes, its sha256 in hex."""

    path: str
    size: int
    sha256: str

    @property
    def blob(self) -> str:
        """Its path in the transport layout."""
        return f"blobs/{self.sha256[:2]}/{self.sha256}"


def parse_manifest(data: bytes) -> dict[str, Any]:
    """Return a manifest whose every path is safe to write, with `files` as entries.

    Raises:
        BundleRejected: when it is not canonical JSON of this format, or names a path that could leave the bundle or
            collide.
    """
    try:
        raw = json.loads(data, object_pairs_hook=_reject_duplicate_keys)
    except (ValueError, RecursionError) as bad:
        raise BundleRejected(f"{MANIFEST} is not JSON ({bad}); copy the bundle again") from bad
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise BundleRejected(f"{MANIFEST} has format {found!r}; this rackserve reads format {FORMAT}")
    if canonical(raw) != data:
        raise BundleRejected(f"{MANIFEST} is not in canonical form; it was edited after the build")
    if not (isinstance(raw.get("name"), str) and _NAME.fullmatch(raw["name"])):
        raise BundleRejected(
            f"{MANIFEST} has the name {raw.get('name')!r}; a name is lower-case letters, digits, - and _"
        )
    version = raw.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleRejected(f"{MANIFEST} has the version {version!r}; a version is a whole number from 1")
    _date(raw.get("expires"))
    try:
        raw["files"] = [Entry(**item) for item in raw["files"]]
    except (KeyError, TypeError) as bad:
        raise BundleRejected(f"{MANIFEST} lacks or misuses a field ({bad}); build the bundle again") from bad
    _reject_unsafe_paths(raw["files"])
    return raw


def canonical(manifest: dict[str, Any]) -> bytes:
    """Return the canonical text of a manifest: sorted keys, one space of indent, one trailing newline."""
    return (json.dumps(manifest, sort_keys=True, indent=1) + "\n").encode()


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key occurs twice in one object")
    return dict(pairs)


def _date(text: Any) -> dt.date | None:  # noqa: ANN401
    try:
        return None if text is None else dt.date.fromisoformat(text)
    except (TypeError, ValueError):
        raise BundleRejected(f"{MANIFEST} expires on {text!r}, which is not a date like 2027-12-31") from None


def _reject_unsafe_paths(files: list[Entry]) -> None:
    seen: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for entry in files:
        _reject_invalid_entry(entry)
        if entry.path.lower() in seen:
            raise BundleRejected(f"{MANIFEST} names {entry.path!r} twice; this bundle was tampered with")
        if sizes.setdefault(entry.sha256, entry.size) != entry.size:
            raise BundleRejected(
                f"{MANIFEST} gives one content two sizes, at {entry.path!r}; this bundle was tampered with"
            )
        seen[entry.path.lower()] = entry.path
    for path in seen:
        above = path.rpartition("/")[0]
        while above:
            if above in seen:
                raise BundleRejected(f"{MANIFEST} names {seen[above]!r} as a file and as a folder")
            above = above.rpartition("/")[0]
    if [entry.path for entry in files] != sorted(entry.path for entry in files):
        raise BundleRejected(f"{MANIFEST} does not sort its files; it was edited after the build")


def _reject_invalid_entry(entry: Entry) -> None:
    if not isinstance(entry.path, str) or not is_safe_path(entry.path):
        raise BundleRejected(f"{MANIFEST} names the unsafe path {entry.path!r}; this bundle was tampered with")
    if entry.path in {MANIFEST, SIGNATURE, HOST_PARTS} or entry.path.split("/")[0] in {ATTESTATIONS, "blobs"}:
        raise BundleRejected(f"{MANIFEST} names {entry.path!r}, a name that is the bundle's own")
    if not isinstance(entry.size, int) or isinstance(entry.size, bool) or entry.size < 0:
        raise BundleRejected(f"{MANIFEST} gives {entry.path!r} the size {entry.size!r}; a size is a number of bytes")
    if not isinstance(entry.sha256, str) or not _SHA256.fullmatch(entry.sha256):
        raise BundleRejected(f"{MANIFEST} has no usable sha256 for {entry.path!r}; build the bundle again")


def is_safe_path(path: str) -> bool:
    """Return whether a relative path stays inside a bundle, on any file system."""
    parts = path.split("/")
    return len(path) <= MAX_PATH and all(_PART.fullmatch(part) and part not in {".", ".."} for part in parts)


def verify_signature(
    data: bytes, signature: str, signers: str, revoked: str | None = None, namespace: str = NAMESPACE
) -> str:
    """Return the name of the signer of a manifest's bytes, or of an attestation.

    Args:
        data: the bytes that were signed.
        signature: path of the signature.
        signers: path of an allowed-signers file (ssh-keygen(1), ALLOWED SIGNERS).
        revoked: path of a list of public keys, or of a KRL.
        namespace: the signature's namespace (ssh-keygen -n).

    Raises:
        BundleRejected: for a bad signature or a key that is untrusted, expired or revoked.
    """
    name = os.path.basename(signature)
    if not os.path.isfile(signature):
        raise BundleRejected(f"{name} is missing: {name[: -len('.sig')]} is not signed")
    checked = _keygen(data, "check-novalidate", "-n", namespace, "-s", signature)
    found = _FINGERPRINT.search(checked.stdout)
    if checked.returncode != 0 or not found:
        raise BundleRejected(f"{name} is not a signature of {name[: -len('.sig')]}: {_last_line(checked)}")
    fingerprint = found.group(1)
    names = signer_names(signers, fingerprint)
    if not names:
        known = ", ".join(sorted(signer_names(signers))) or "none"
        raise BundleRejected(
            f"it is signed with the key {fingerprint}, which is not a trusted key; trusted are: {known}"
        )
    extra = ["-r", revoked] if revoked else []
    for signer in names:
        checked = _keygen(data, "verify", "-n", namespace, "-s", signature, "-f", signers, "-I", signer, *extra)
        if checked.returncode == 0:
            return signer
    raise BundleRejected(f"the key {fingerprint} of {names[0]} is expired or revoked: {_last_line(checked)}")


def signer_names(signers: str, fingerprint: str | None = None) -> list[str]:
    """Return the signers' names in an allowed-signers file: all, or those of one key.

    Raises:
        BundleRejected: when the file cannot be read.
    """
    found = []
    try:
        with open(signers, encoding="utf-8") as source:
            lines = [line.split() for line in source if line.strip() and not line.startswith("#")]
    except OSError as failed:
        raise BundleRejected(f"the signers file {signers} cannot be read: {failed.strerror}") from failed
    for words in lines:
        for kind, key in zip(words[1:], words[2:]):
            if kind.startswith(("ssh-", "sk-", "ecdsa-")) and fingerprint in {None, _fingerprint(key)}:
                found.append(words[0])
    return found


def _fingerprint(key: str) -> str:
    try:
        digest = hashlib.sha256(base64.b64decode(key)).digest()
    except binascii.Error:
        return ""
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _keygen(data: bytes, action: str, *options: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("ssh-keygen"):
        raise BundleRejected("ssh-keygen is not on this machine; install openssh-client, or give --manifest-sha256")
    return subprocess.run(
        ["ssh-keygen", "-Y", action, *options],
        input=data.decode("utf-8", "surrogateescape"),
        errors="surrogateescape",
        capture_output=True,
        text=True,
        check=False,
    )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip() or done.stdout.strip()).splitlines()[-1] if done.stderr or done.stdout else "no reason"


def check_expiry(manifest: dict[str, Any], today: dt.date) -> None:
    """Reject a bundle that has expired.

    Args:
        manifest: a parsed manifest.
        today: the date in UTC.

    Raises:
        BundleRejected: with the dates found.
    """
    expires = _date(manifest["expires"])
    if expires is not None and today > expires:
        raise BundleRejected(f"it expired on {expires}, and today is {today}; bring a newer one")


class RollbackProtection:
    """Rollback protection: the newest version of each bundle that a machine accepted, and the history of all.

    Two files in one folder: `bundle-floor.json` (name -> version and id of the newest, id of the one installed) and
    `bundle-history.jsonl`.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "bundle-floor.json")
        self._history = os.path.join(folder, "bundle-history.jsonl")

    def read(self) -> dict[str, Any]:
        """Return the accepted versions by bundle; empty on a new machine.

        Raises:
            BundleRejected: when the record cannot be read; it is never ignored.
        """
        try:
            with open(self._path, encoding="utf-8") as source:
                return dict(json.load(source))
        except FileNotFoundError:
            return {}
        except (TypeError, ValueError) as bad:
            raise BundleRejected(
                f"{self._path}, the newest accepted versions, cannot be read ({bad}); repair it by hand"
            ) from bad

    def check(self, manifest: dict[str, Any], identity: str, downgrade_reason: str | None) -> None:
        """Reject a version older than the newest one, and other contents under its number.

        Raises:
            BundleRejected: with the versions found.
        """
        refuse_rollback(manifest["name"], manifest["version"], identity, self.read(), downgrade_reason)

    def record(self, manifest: dict[str, Any], identity: str, signer: str, downgrade_reason: str | None) -> bool:
        """Raise the minimum version and add a line to the history; return whether there was anything to record."""
        accepted = self.read()
        known = accepted.get(manifest["name"], {})
        if known.get("installed") == identity:
            return False
        now = {"version": manifest["version"], "id": identity}
        newest = now if manifest["version"] >= known.get("version", 0) else known
        accepted[manifest["name"]] = {**newest, "installed": identity}
        write_durably(self._path, json.dumps(accepted, indent=1, sort_keys=True) + "\n")
        at = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
        row = {"at": at, "name": manifest["name"], **now, "signer": signer, "downgrade_reason": downgrade_reason}
        with open(self._history, "a", encoding="utf-8") as history:
            history.write(json.dumps(row, sort_keys=True) + "\n")
        return True


def refuse_rollback(name: str, version: int, identity: str, accepted: dict[str, Any], reason: str | None) -> None:
    """Reject a bundle older than the newest that a machine accepted, and other contents under one version.

    Args:
        name: the bundle's name.
        version: its version.
        identity: its id.
        accepted: name -> version and id of the newest accepted bundle.
        reason: why an older version is allowed; without one it is rejected.

    Raises:
        BundleRejected: with the versions found.
    """
    known = accepted.get(name, {})
    least = known.get("version", 0)
    if version < least and not reason and known.get("installed") != identity:
        raise BundleRejected(
            f"it is version {version} of {name}, older than version {least}, which was accepted before; bring a newer "
            "one, or give --allow-downgrade REASON"
        )
    if version == least and known.get("id") != identity:
        raise BundleRejected(
            f"it is version {version} of {name} with other contents ({identity}) than the one that was accepted before "
            f"({known.get('id')}); raise `version` in bundle.yml and build it again"
        )


def write_durably(path: str, text: str) -> None:
    """Replace a text file atomically; also after a power loss it is the old or the new one."""
    draft = f"{path}.new"
    with open(draft, "w", encoding="utf-8") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    os.replace(draft, path)
    sync(os.path.dirname(os.path.abspath(path)))


def sync(path: str) -> None:
    """Make a file's bytes, or a folder's names, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def manifest_id(data: bytes) -> str:
    """Return a bundle's id: the first 16 hex digits of the sha256 of its manifest."""
    return hashlib.sha256(data).hexdigest()[:16]


def sha256_of(path: str) -> str:
    """Return the sha256 of a file in hex, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class Digests:
    """The sha256 of each file that was read in one run, so that the run reads each file once.

    Content is identified by its device, inode, size and times of change in nanoseconds: what was written or replaced
    since is read again. Saved digests are accepted only with the sha256 of the saved file: those of another run are
    not.
    """

    def __init__(self, known: dict[str, str] | None = None) -> None:
        self._known = dict(known or {})
        self._lock = threading.Lock()
        self.read_bytes = 0

    @classmethod
    def load(cls, path: str, sha256: str) -> Digests:
        """Return the digests of a file with that sha256; none where the file is missing or differs."""
        try:
            with open(path, "rb") as source:
                data = source.read()
        except FileNotFoundError:
            return cls()
        return cls(json.loads(data)) if hashlib.sha256(data).hexdigest() == sha256 else cls()

    def save(self, path: str) -> str:
        """Write them to a file and return its sha256, which `load` needs."""
        text = json.dumps(self._known, indent=0, sort_keys=True)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write_durably(path, text)
        return hashlib.sha256(text.encode()).hexdigest()

    def of(self, path: str) -> str:
        """Return the sha256 of a file in hex; a file that is known is not read again."""
        status = os.stat(path)
        if _content(status) in self._known:
            return self._known[_content(status)]
        digest = sha256_of(path)
        with self._lock:
            self.read_bytes += status.st_size
        if _content(os.stat(path)) == _content(status):
            self._known[_content(status)] = digest
        return digest

    def rename(self, source: str, target: str) -> None:
        """Rename a file; the kernel counts that as a change, but its bytes need not be read again."""
        before = _content(os.stat(source))
        os.replace(source, target)
        after = _content(os.stat(target))
        if before in self._known and before.rpartition(":")[0] == after.rpartition(":")[0]:
            self._known[after] = self._known[before]


def _content(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def transport_files(entries: Iterable[Entry]) -> list[Entry]:
    """Return the files of the transport layout: each content once, by its blob's path, and this verifier."""
    files = {entry.blob: entry._replace(path=entry.blob) for entry in entries}
    files.update({entry.path: entry for entry in entries if entry.path == VERIFIER})
    return [files[path] for path in sorted(files)]


def files_at(bundle: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the files that a bundle's folder should hold, in its layout."""
    return transport_files(entries) if os.path.isdir(os.path.join(bundle, "blobs")) else list(entries)


def file_problem(root: str, entry: Entry, digest_of: Callable[[str], str] = sha256_of) -> str | None:
    """Return the problem of one file of a bundle, or None."""
    path = os.path.join(root, entry.path)
    try:
        status = os.lstat(path)
        problem = _status_problem(entry, status)
        if problem is None and digest_of(path) != entry.sha256:
            problem = f"{entry.path} was altered: its sha256 is not the manifest's"
    except (FileNotFoundError, NotADirectoryError):
        return f"{entry.path} is missing"
    except OSError as failed:
        return f"{entry.path} cannot be read: {failed.strerror}"
    return problem


def _status_problem(entry: Entry, status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return f"{entry.path} is a link; a bundle holds plain files only"
    if not stat.S_ISREG(status.st_mode):
        return f"{entry.path} is not a plain file"
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return f"{entry.path} is set-user-id; a bundle holds no programs of that kind"
    if status.st_size != entry.size:
        return f"{entry.path} has {status.st_size} bytes, its manifest says {entry.size}"
    return None


def folder_problems(
    root: str,
    wanted: Iterable[Entry],
    known: Iterable[str] = (),
    on_file: Callable[[Entry], None] = lambda _: None,
    digest_of: Callable[[str], str] = sha256_of,
) -> list[str]:
    """Compare a folder with what it should hold, byte for byte, and return a sentence for every difference.

    Args:
        root: the folder.
        wanted: the files that must be there, by their paths in this folder.
        known: other paths that may be there.
        on_file: called after each file was read, for progress.
        digest_of: given a path, it returns the sha256 of that file.
    """
    wanted = list(wanted)
    allowed = {entry.path for entry in wanted} | set(known)
    found = []
    for folder, folders, names in os.walk(root):
        for name in sorted(folders + names):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            if os.path.islink(path) and relative not in allowed:
                found.append(f"{relative} is a link; a bundle holds plain files only")
            elif name in names and relative not in allowed:
                found.append(f"{relative} is in the bundle but not in its manifest")

    def check(entry: Entry) -> str | None:
        problem = file_problem(root, entry, digest_of)
        on_file(entry)
        return problem

    with ThreadPoolExecutor() as pool:
        found.extend(problem for problem in pool.map(check, wanted) if problem)
    return found


def read_bounded(root: str, name: str) -> bytes:
    """Return the bytes of the manifest or another small file of a bundle.

    Raises:
        BundleRejected: when it is missing, too large or not a plain file.
    """
    path = os.path.join(root, name)
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            raise BundleRejected(f"{name} is not a plain file")
        if status.st_size > MAX_MANIFEST:
            raise BundleRejected(f"{name} has {status.st_size} bytes; at most {MAX_MANIFEST} are read")
        with open(path, "rb") as source:
            return source.read()
    except FileNotFoundError:
        raise BundleRejected(f"no bundle at {root}: {name} is missing") from None


def write_tree(bundle: str, entries: list[Entry], dest: str) -> None:
    """Unpack a verified bundle from its transport layout, with hard links where possible.

    Raises:
        BundleRejected: when the destination exists.
        OSError: when the disk is full.
    """
    if os.path.lexists(dest):
        raise BundleRejected(f"{dest} exists; name a new folder")
    draft = f"{dest.rstrip('/')}.new"
    shutil.rmtree(draft, ignore_errors=True)
    for entry in entries:
        target = os.path.join(draft, entry.path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        place(os.path.join(bundle, entry.blob), target)
    for name in (MANIFEST, SIGNATURE):
        if os.path.exists(os.path.join(bundle, name)):
            shutil.copyfile(os.path.join(bundle, name), os.path.join(draft, name))
    os.rename(draft, dest)


def place(source: str, target: str) -> None:
    """Hard-link a file, or copy it where a hard link is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class _PlainMember(tarfile.TarInfo):
    """A member of an archive that is a plain file; any other kind is rejected before its header is acted upon."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _PlainMember:
        """Read one header, as tarfile does; extended headers, links, devices and sparse files are rejected."""
        member = super().frombuf(buf, encoding, errors)
        if member.type != tarfile.REGTYPE or member.mode & (stat.S_ISUID | stat.S_ISGID):
            raise BundleRejected(
                f"{member.name!r} in the parts is not a plain file (kind {member.type!r}, mode {member.mode:o})"
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
        raise BundleRejected(f"{folder} holds the parts of {len(lists)} bundles: {', '.join(lists)}; keep them apart")
    try:
        listed = json.loads(read_bounded(folder, lists[0]))["parts"]
        parts = [Entry(item["name"], item["size"], item["sha256"]) for item in listed]
    except (KeyError, TypeError, ValueError) as bad:
        raise BundleRejected(f"{lists[0]} is not a list of parts ({bad}); copy it again") from bad
    if not parts or not all(isinstance(part.path, str) and _PART.fullmatch(part.path) for part in parts):
        raise BundleRejected(f"{lists[0]} names no parts, or parts elsewhere; copy it again")
    return parts


def extract(
    stream: IO[bytes],
    dest: str,
    trust: Callable[[bytes, str], dict[str, Any]],
    on_file: Callable[[Entry], None] = lambda _: None,
) -> None:
    """Extract a bundle's archive into the transport layout; files of an earlier, interrupted run are kept.

    The manifest and its signature come first, and nothing else is written before they are trusted. After that only the
    contents that the manifest names are, each under its own hash, and only once its bytes have that hash.

    Args:
        stream: the archive.
        dest: the folder.
        trust: called with the manifest's bytes and the signature's path; it returns the parsed manifest or rejects it.
        on_file: called after each file.

    Raises:
        BundleRejected: for a member of another kind, name, size or content, or a duplicate.
        OSError: when the disk is full.
    """
    os.makedirs(dest, exist_ok=True)
    wanted: dict[str, Entry] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_PlainMember) as archive:
            members = iter(archive)
            head = [_head_member(archive, next(members, None), name) for name in (MANIFEST, SIGNATURE)]
            for name, data in zip((MANIFEST, SIGNATURE), head):
                with open(os.path.join(dest, name), "wb") as target:
                    target.write(data)
            manifest = trust(head[0], os.path.join(dest, SIGNATURE))
            wanted = {entry.path: entry for entry in transport_files(manifest["files"])}
            for member in members:
                _write_member(archive, member, dest, wanted, on_file)
    except tarfile.TarError as bad:
        raise BundleRejected(f"the parts are not a whole archive ({bad}); copy them again") from bad


def _head_member(archive: tarfile.TarFile, member: tarfile.TarInfo | None, name: str) -> bytes:
    if member is None or member.name != name:
        raise BundleRejected(f"the parts do not begin with {MANIFEST} and {SIGNATURE}; this is not a bundle")
    return _member_bytes(archive, member)


def _write_member(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    dest: str,
    wanted: dict[str, Entry],
    on_file: Callable[[Entry], None],
) -> None:
    path = os.path.join(dest, member.name)
    if re.fullmatch(rf"{ATTESTATIONS}/[a-z-]+\.json(\.sig)?", member.name):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as target:
            target.write(_member_bytes(archive, member))
        return
    entry = wanted.pop(member.name, None)
    if entry is None:
        raise BundleRejected(f"{member.name!r} is in the parts but not in the manifest, or occurs twice")
    if member.size != entry.size:
        raise BundleRejected(f"{member.name} has {member.size} bytes in the parts, its manifest says {entry.size}")
    if file_problem(dest, entry):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        draft = f"{path}.new"
        source = archive.extractfile(member)
        with open(draft, "wb") as target:
            shutil.copyfileobj(source, target, CHUNK)  # type: ignore[arg-type]
            target.flush()
            os.fsync(target.fileno())
        if sha256_of(draft) != entry.sha256:
            os.unlink(draft)
            raise BundleRejected(f"{member.name} was altered: its sha256 is not the manifest's")
        os.replace(draft, path)
    on_file(entry)


def _member_bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_MANIFEST:
        raise BundleRejected(f"{member.name!r} has {member.size} bytes; at most {MAX_MANIFEST} are read")
    source = archive.extractfile(member)
    return source.read() if source else b""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Verify a bundle of rackserve, and unpack it.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("check", "unpack"):
        sub = verbs.add_parser(verb)
        sub.add_argument("bundle", help="a bundle's folder, or a folder with its parts")
        if verb == "unpack":
            sub.add_argument("dest")
        else:
            sub.add_argument("--parts", help="JSON list of the paths that a host holds; without it, all")
            sub.add_argument("--digests", metavar="FILE", help="digests of the files that were read in this run")
            sub.add_argument("--digests-sha256", metavar="HEX", help="sha256 of that file, to know it as this run's")
        trust = sub.add_mutually_exclusive_group(required=True)
        trust.add_argument("--signers", help="allowed signers, as ssh-keygen reads them")
        trust.add_argument("--manifest-sha256", help="the manifest's sha256, from another channel")
        sub.add_argument("--revoked", help="revoked public keys, or a KRL")
        sub.add_argument("--floor", metavar="DIR", help="folder of the newest accepted versions (rollback protection)")
        sub.add_argument("--allow-downgrade", metavar="REASON", help="accept an older version; the reason is recorded")
    return parser.parse_args()


def _verify_manifest(args: argparse.Namespace, data: bytes, signature: str) -> tuple[dict[str, Any], str]:
    """Return the verified manifest and its signer."""
    signer = "its sha256"
    if args.signers:
        signer = verify_signature(data, signature, args.signers, args.revoked)
    elif hashlib.sha256(data).hexdigest() != args.manifest_sha256.lower():
        raise BundleRejected(f"the manifest's sha256 is {hashlib.sha256(data).hexdigest()}, not the one given")
    manifest = parse_manifest(data)
    check_expiry(manifest, dt.datetime.now(dt.timezone.utc).date())
    if args.floor:
        RollbackProtection(args.floor).check(manifest, manifest_id(data), args.allow_downgrade)
    return manifest, signer


def part_problems(folder: str, parts: list[Entry]) -> list[str]:
    """Return a sentence for every part that is missing or damaged."""
    return [problem for part in parts if (problem := file_problem(folder, part))]


def _run(args: argparse.Namespace) -> str:
    bundle = args.bundle
    with contextlib.ExitStack() as stack:
        parts = read_parts(bundle)
        if parts is not None:
            _reject(part_problems(bundle, parts))
            near = os.path.dirname(os.path.abspath(args.dest)) if args.verb == "unpack" else None
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=near))
            stream = stack.enter_context(open_parts(bundle, parts))
            extract(stream, folder, lambda data, signature: _verify_manifest(args, data, signature)[0])
            bundle = folder
        data = read_bounded(bundle, MANIFEST)
        manifest, signer = _verify_manifest(args, data, os.path.join(bundle, SIGNATURE))
        wanted = _check(args, bundle, manifest["files"])
        if args.verb == "unpack":
            write_tree(bundle, manifest["files"], args.dest)
        if args.floor and RollbackProtection(args.floor).record(
            manifest, manifest_id(data), signer, args.allow_downgrade
        ):
            print("recorded")
    size = sum(entry.size for entry in wanted)
    return f"{manifest['name']} version {manifest['version']} ({manifest_id(data)}), {len(wanted)} files, {size} bytes"


def _check(args: argparse.Namespace, bundle: str, entries: list[Entry]) -> list[Entry]:
    if args.verb == "unpack" and not os.path.isdir(os.path.join(bundle, "blobs")):
        raise BundleRejected(f"{bundle} is unpacked already")
    wanted = files_at(bundle, entries)
    known = {MANIFEST, SIGNATURE, *attestations(bundle)}
    digests = Digests()
    if args.verb == "check" and args.parts:
        with open(args.parts, encoding="utf-8") as source:
            paths = set(json.load(source))
        wanted = [entry for entry in entries if entry.path in paths]
        known.add(os.path.relpath(args.parts, bundle))
    if args.verb == "check" and args.digests:
        digests = Digests.load(args.digests, args.digests_sha256)
    _reject(folder_problems(bundle, wanted, known, digest_of=digests.of))
    return wanted


def attestations(bundle: str) -> set[str]:
    """Return the paths of a bundle's attestations, which are added after the build."""
    folder = os.path.join(bundle, ATTESTATIONS)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return {f"{ATTESTATIONS}/{name}" for name in names if re.fullmatch(r"[a-z-]+\.json(\.sig)?", name)}


def _reject(problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise BundleRejected("; ".join(problems[:SHOWN]) + more)


def main() -> int:
    """Run the command line."""
    args = _arguments()
    try:
        print(f"ok: {_run(args)}")
    except (BundleRejected, OSError) as rejected:
        print(f"refused: {args.bundle}: {rejected}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
