"""The manifest of a bundle: every file with its size and sha256, read from a medium that anybody may have written."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import re
import reprlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
HOST_PARTS = "host-parts.json"
VERIFIER = "verify_bundle.pyz"
ATTESTATIONS = "attestations"
PARTS = ".parts.json"
FORMAT = 2
MAX_PATH = 400
MAX_VERSION = 10**15 - 1  # 15 digits: dates with seconds fit, and every reader of JSON has it exactly

_KEYS = ("name", "version", "expires", "files")
_OWN_NAMES = (MANIFEST, SIGNATURE, HOST_PARTS, ATTESTATIONS, "blobs")
_MAX_DIGITS = 20
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PART = re.compile(r"[A-Za-z0-9._+~@%=,!-]{1,200}")  # "!" ends the epoch in a wheel's name (PEP 440)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 120


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


def excerpt(value: Any) -> str:  # noqa: ANN401 - whatever JSON or a file system has
    """Return a value for a message: in one line, short, and without characters that a terminal acts upon."""
    return _SHORT.repr(value)


def load_json(data: bytes, name: str, remedy: str = "; copy the bundle again") -> Any:  # noqa: ANN401 - any JSON
    """Return the value of a JSON text that is not trusted.

    Args:
        data: UTF-8, as RFC 7493 (I-JSON) has it: no NaN, no key twice, no half of a surrogate pair.
        name: the file, for the message.
        remedy: what to do, for the message.

    Raises:
        BundleRejected: when it is not JSON, is nested too deeply or has a number that is too long.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_reject_duplicate_keys,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_reject_constant,
        )
        if _SURROGATE.search(data):  # half of a pair is no text, and nothing can print it
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as bad:
        raise BundleRejected(f"{name} is not JSON ({bad}){remedy}") from bad
    return value


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _reject_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")


def parse_manifest(data: bytes) -> dict[str, Any]:
    """Return a manifest whose every path is safe to write, with `files` as entries.

    Raises:
        BundleRejected: when it is not canonical JSON of this format, or names a path that could leave the bundle or
            collide.
    """
    raw = load_json(data, MANIFEST)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT or isinstance(raw["format"], float):
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise BundleRejected(f"{MANIFEST} has format {excerpt(found)}; this rackserve reads format {FORMAT}")
    if not _is_canonical(raw, data):
        raise BundleRejected(f"{MANIFEST} is not in canonical form; it was edited after the build")
    if lacking := [key for key in _KEYS if key not in raw]:
        raise BundleRejected(f"{MANIFEST} lacks or misuses a field ({', '.join(lacking)}); build the bundle again")
    if not (isinstance(raw["name"], str) and _NAME.fullmatch(raw["name"])):
        raise BundleRejected(
            f"{MANIFEST} has the name {excerpt(raw['name'])}; a name is lower-case letters, digits, - and _"
        )
    if not is_version(raw["version"]):
        raise BundleRejected(
            f"{MANIFEST} has the version {excerpt(raw['version'])}; a version is a whole number from 1 to {MAX_VERSION}"
        )
    _date(raw["expires"])
    raw["files"] = _entries(raw["files"])
    return raw


def canonical(manifest: dict[str, Any]) -> bytes:
    """Return the canonical text of a manifest: sorted keys, one space of indent, one trailing newline."""
    return (json.dumps(manifest, sort_keys=True, indent=1) + "\n").encode()


def _is_canonical(raw: dict[str, Any], data: bytes) -> bool:
    try:
        return canonical(raw) == data
    except RecursionError:
        return False


def is_version(value: Any) -> bool:  # noqa: ANN401 - any JSON
    """Return whether a value is a bundle's version."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_VERSION


def _date(text: Any) -> dt.date | None:  # noqa: ANN401 - any JSON
    if text is None:
        return None
    try:
        if isinstance(text, str) and _DATE.fullmatch(text):  # Python 3.11 reads other forms too, 3.9 does not
            return dt.date.fromisoformat(text)
    except ValueError:
        pass
    raise BundleRejected(f"{MANIFEST} expires on {excerpt(text)}, which is not a date like 2027-12-31")


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


def _entries(files: Any) -> list[Entry]:  # noqa: ANN401 - any JSON
    if not isinstance(files, list):
        raise BundleRejected(f"{MANIFEST} lacks or misuses a field (files); build the bundle again")
    for item in files:
        if not isinstance(item, dict) or set(item) != set(Entry._fields):
            raise BundleRejected(
                f"{MANIFEST} lacks or misuses a field (files has {excerpt(item)}); build the bundle again"
            )
    entries = [Entry(**item) for item in files]
    _reject_unsafe_paths(entries)
    return entries


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
        raise BundleRejected(f"{MANIFEST} names the unsafe path {excerpt(entry.path)}; this bundle was tampered with")
    top = entry.path.split("/")[0].lower()  # media and disks may fold case
    if top in _OWN_NAMES or top.endswith(PARTS):
        raise BundleRejected(f"{MANIFEST} names {entry.path!r}, a name that is the bundle's own")
    if not is_size(entry.size):
        raise BundleRejected(
            f"{MANIFEST} gives {entry.path!r} the size {excerpt(entry.size)}; a size is a number of bytes"
        )
    if not is_sha256(entry.sha256):
        raise BundleRejected(f"{MANIFEST} has no usable sha256 for {entry.path!r}; build the bundle again")


def is_safe_path(path: str) -> bool:
    """Return whether a relative path stays inside a bundle, on any file system."""
    parts = path.split("/")
    return len(path) <= MAX_PATH and all(_PART.fullmatch(part) and part not in {".", ".."} for part in parts)


def is_size(value: Any) -> bool:  # noqa: ANN401 - any JSON
    """Return whether a value is a number of bytes."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_sha256(value: Any) -> bool:  # noqa: ANN401 - any JSON
    """Return whether a value is a sha256 in hex."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def manifest_id(data: bytes) -> str:
    """Return a bundle's id: the first 16 hex digits of the sha256 of its manifest."""
    return hashlib.sha256(data).hexdigest()[:16]


def transport_files(entries: Iterable[Entry]) -> list[Entry]:
    """Return the files of the transport layout: each content once, by its blob's path, and this verifier."""
    files = {entry.blob: entry._replace(path=entry.blob) for entry in entries}
    files.update({entry.path: entry for entry in entries if entry.path == VERIFIER})
    return [files[path] for path in sorted(files)]
