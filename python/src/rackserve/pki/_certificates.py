"""Certificates: an authority's own, and those that it signs. ECDSA on P-256, Mozilla's first choice."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTHORITY_LIFETIME: Final = dt.timedelta(days=3650)
LEAF_LIFETIME: Final = dt.timedelta(days=365)
RENEW_BEFORE: Final = dt.timedelta(days=30)
_SKEW: Final = dt.timedelta(hours=1)


class Pair(NamedTuple):
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def renewal_due(not_after: dt.datetime, now: dt.datetime) -> bool:
    """Return whether a certificate must be renewed: it expires within 30 days."""
    return not_after - now <= RENEW_BEFORE


def make_authority(name: str, now: dt.datetime) -> Pair:
    """Make a self-signed CA that is valid for ten years."""
    return _self_signed(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), _new_key(), now)


def renew_authority(old: Pair, now: dt.datetime) -> Pair:
    """Renew a CA for ten years: same name and key, so that earlier certificates stay valid under both."""
    return _self_signed(old.certificate.subject, old.key, now)


def general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """Return names as a certificate has them; what reads as an address is one."""
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def issue_server(names: Sequence[str], authority: Pair, now: dt.datetime) -> Pair:
    """Make a server's certificate for a year, for all of its names; the first is the subject's."""
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    return _issue(names[0], usage, x509.SubjectAlternativeName(general_names(names)), authority, now)


def issue_client(name: str, authority: Pair, now: dt.datetime) -> Pair:
    """Make a client's certificate for a year, with the subject `CN=<name>`."""
    return _issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, None, authority, now)


def is_issued_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether an authority has signed a certificate."""
    try:
        leaf.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - any reason makes it another authority's certificate
        return False
    return True


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _self_signed(name: x509.Name, key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> Pair:
    builder = _builder(name, name, key).not_valid_before(now - _SKEW).not_valid_after(now + AUTHORITY_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return Pair(builder.add_extension(_usage(is_ca=True), critical=True).sign(key, hashes.SHA256()), key)


def _issue(
    name: str,
    usage: x509.ObjectIdentifier,
    names: x509.SubjectAlternativeName | None,
    authority: Pair,
    now: dt.datetime,
) -> Pair:
    key = _new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, authority.certificate.subject, key).not_valid_before(now - _SKEW)
    # No longer than the authority, or clients would refuse it before its own end.
    builder = builder.not_valid_after(min(now + LEAF_LIFETIME, authority.certificate.not_valid_after_utc))
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Pair(certificate, key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
