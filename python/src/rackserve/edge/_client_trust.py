"""Client certificates that the edge accepts: the CAs, and their certificate revocation lists (CRLs)."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CRL: Final = b"-----BEGIN X509 CRL-----"


def trust_problems(ca_file: str, crl_file: str, now: dt.datetime | None = None) -> list[str]:
    """Return the problems with which nginx would refuse every client or not start; empty when valid.

    With `ssl_crl`, nginx requires a current CRL of every CA of a chain.

    Args:
        ca_file: PEM file on the controller with the CAs.
        crl_file: PEM file with a CRL of each of them, or "" for none.
        now: the time at which they must be valid.
    """
    moment = now or dt.datetime.now(dt.UTC)
    try:
        authorities = x509.load_pem_x509_certificates(Path(ca_file).read_bytes())
    except (OSError, ValueError) as wrong:
        return [f"nginx_client_ca_src: {ca_file} holds no certificate ({wrong}); set it to a PEM file of authorities"]
    found = [f"nginx_client_ca_src: {ca_file}: {text}" for ca in authorities for text in _unfit(ca, moment)]
    if not crl_file:
        return found
    try:
        lists = list(_lists(Path(crl_file).read_bytes()))
    except (OSError, ValueError) as wrong:
        return [
            *found,
            f"nginx_client_crl_src: {crl_file} holds no revocation list ({wrong}); set it to a PEM file of CRLs",
        ]
    return found + [f"nginx_client_crl_src: {crl_file}: {text}" for text in _unlisted(authorities, lists, moment)]


def _unlisted(
    authorities: Sequence[x509.Certificate], lists: Sequence[x509.CertificateRevocationList], now: dt.datetime
) -> Iterator[str]:
    for ca in authorities:
        ends = max((found.next_update_utc or now for found in lists if _is_of(found, ca)), default=None)
        if ends is None:
            yield f"there is no revocation list of {_name(ca)} in it; add one, even an empty one"
        elif ends <= now:
            yield (
                f"the revocation list of {_name(ca)} expired on {ends:%Y-%m-%d %H:%M} UTC, and nginx would refuse "
                "every client; have its authority issue a new one"
            )


def _is_of(found: x509.CertificateRevocationList, ca: x509.Certificate) -> bool:
    try:
        return found.issuer == ca.subject and found.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    except (InvalidSignature, TypeError, ValueError):
        return False


def _unfit(ca: x509.Certificate, now: dt.datetime) -> Iterator[str]:
    try:
        is_ca = ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        yield f"{_name(ca)} is not a CA certificate; name the one that signed the clients'"
    if ca.not_valid_after_utc <= now:
        yield f"{_name(ca)} expired on {ca.not_valid_after_utc:%Y-%m-%d}; set its successor"


def _lists(pem: bytes) -> Iterator[x509.CertificateRevocationList]:
    parts = pem.split(_CRL)[1:]
    if not parts:
        raise ValueError("no X509 CRL")
    for part in parts:
        yield x509.load_pem_x509_crl(_CRL + part)


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()
