"""An authority's folder: `ca.crt` and `ca.key`, and a pair of the same kind for everything that it signed."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rackserve._files import write_text
from rackserve.errors import InputError
from rackserve.pki._certificates import (
    Pair,
    general_names,
    is_issued_by,
    issue_client,
    issue_server,
    make_authority,
    renewal_due,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

AUTHORITY: Final = "ca"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# `absent`: the authority's key is not in the folder, so nothing can be signed here.
Outcome = Literal["kept", "made", "renewed", "absent"]


class Row(NamedTuple):
    """One certificate of a folder: whose it is, for what, and the days that it has left."""

    name: str
    kind: str
    subject: str
    names: list[str]
    ends: str
    days: int
    due: bool


def load(folder: Path, stem: str) -> Pair | None:
    """Return a pair that belongs together; None where there is none, or an interrupted write left two halves."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{stem}.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{stem}.key").read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return Pair(certificate, key)


def save(folder: Path, stem: str, pair: Pair) -> None:
    """Write a pair, each file in one step, the key for its owner alone."""
    pem = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_text(folder / f"{stem}.key", pem.decode())
    text = pair.certificate.public_bytes(serialization.Encoding.PEM).decode()
    write_text(folder / f"{stem}.crt", text, mode=0o644)


def new_authority(folder: Path, name: str) -> Pair:
    """Make an authority in a folder that has none, mode 0700.

    Raises:
        InputError: there is one, or part of one.
    """
    for path in (folder / "ca.crt", folder / "ca.key"):
        if path.exists():
            raise InputError(f"{path} exists; `rackserve ca renew` extends the validity of an authority")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pair = make_authority(name, dt.datetime.now(dt.UTC))
    save(folder, AUTHORITY, pair)
    return pair


def authority_of(folder: Path) -> Pair:
    """Return the authority of a folder.

    Raises:
        InputError: there is none whose key is here.
    """
    pair = load(folder, AUTHORITY)
    if pair is None:
        raise InputError(f"{folder} has no authority with its key; run `rackserve ca new`, or bring ca.key back")
    return pair


def ensure_server(folder: Path, stem: str, names: Sequence[str], *, renew: bool = False, write: bool = True) -> Outcome:
    """Ensure a server's certificate that the CA signed, for exactly these names, with more than 30 days left.

    Args:
        folder: the authority's.
        stem: name of the pair's files.
        names: DNS names and addresses; the first is the subject's.
        renew: renew it in any case.
        write: false only reports what would be done.
    """
    if not (folder / "ca.key").is_file():
        return "absent"
    return _ensure(
        folder, stem, lambda ca, now: issue_server(names, ca, now), names=general_names(names), renew=renew, write=write
    )


def ensure_client(folder: Path, name: str, *, renew: bool = False) -> Outcome:
    """Have a client's certificate, subject `CN=<name>`, in `client-<name>.crt` and `.key`.

    Raises:
        InputError: no authority, or a name that no file could have.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be a client's name; use letters, digits, dots, dashes and underscores")
    authority_of(folder)
    return _ensure(folder, f"client-{name}", lambda ca, now: issue_client(name, ca, now), renew=renew)


def _ensure(
    folder: Path,
    stem: str,
    issue: Callable[[Pair, dt.datetime], Pair],
    *,
    names: Sequence[x509.GeneralName] = (),
    renew: bool = False,
    write: bool = True,
) -> Outcome:
    ca, now = authority_of(folder), dt.datetime.now(dt.UTC)
    old = load(folder, stem)
    holds = (
        old is not None
        and is_issued_by(old.certificate, ca.certificate)
        and not renewal_due(old.certificate.not_valid_after_utc, now)
        and _names_of(old.certificate) == list(names)
    )
    if holds and not renew:
        return "kept"
    if write:
        save(folder, stem, issue(ca, now))
    return "renewed" if old else "made"


def _names_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def rows(folder: Path, now: dt.datetime | None = None) -> list[Row]:
    """Return every certificate of a folder, the first to expire first.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; make an authority with `rackserve ca new`")
    moment = now or dt.datetime.now(dt.UTC)
    found = [_row(path, moment) for path in sorted(folder.glob("*.crt"))]
    return sorted((row for row in found if row), key=lambda row: row.days)


def _row(path: Path, now: dt.datetime) -> Row | None:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        return None
    ends = certificate.not_valid_after_utc
    kind = "authority" if path.stem == AUTHORITY else "client" if path.stem.startswith("client-") else "edge"
    names: list[Any] = [name.value for name in _names_of(certificate)]
    return Row(
        path.stem,
        kind,
        certificate.subject.rfc4514_string(),
        [str(name) for name in names],
        f"{ends:%Y-%m-%dT%H:%M:%SZ}",
        (ends - now).days,
        renewal_due(ends, now),
    )
