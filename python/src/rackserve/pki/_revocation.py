"""An authority's list of the clients' certificates that it has revoked, `crl.pem`, as nginx reads it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from rackserve._files import write_text
from rackserve.errors import InputError
from rackserve.pki._certificates import LEAF_LIFETIME, renewal_due
from rackserve.pki._folder import authority_of, load

if TYPE_CHECKING:
    from pathlib import Path

LIST: Final = "crl.pem"


def revoke(folder: Path, name: str) -> None:
    """Put a client's certificate on the list.

    Raises:
        InputError: no authority, or no certificate of that client.
    """
    pair = load(folder, f"client-{name}")
    if pair is None:
        raise InputError(f"{folder} has no certificate of a client {name!r}; see `rackserve ca list`")
    _write(folder, {pair.certificate.serial_number})


def ensure_list(folder: Path) -> bool:
    """Have a list with more than 30 days left; return whether it was made. Its authority's key must be there."""
    old = _read(folder)
    ends = old.next_update_utc if old else None
    if ends is not None and not renewal_due(ends, dt.datetime.now(dt.UTC)):
        return False
    _write(folder, set())
    return True


def _read(folder: Path) -> x509.CertificateRevocationList | None:
    path = folder / LIST
    return x509.load_pem_x509_crl(path.read_bytes()) if path.is_file() else None


def _write(folder: Path, further: set[int]) -> None:
    ca, now, old = authority_of(folder), dt.datetime.now(dt.UTC), _read(folder)
    known = {entry.serial_number: entry.revocation_date_utc for entry in old or ()}
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.certificate.subject)
    builder = builder.last_update(now).next_update(now + LEAF_LIFETIME)
    for serial, since in {**dict.fromkeys(further, now), **known}.items():
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        builder = builder.add_revoked_certificate(entry)
    made = builder.sign(ca.key, hashes.SHA256())
    write_text(folder / LIST, made.public_bytes(serialization.Encoding.PEM).decode(), mode=0o644)
