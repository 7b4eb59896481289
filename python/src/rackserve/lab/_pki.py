"""The lab's own certificate authority, the edge's certificate, and the key of the lab's client."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rackserve.edge import new_key

from ._spec import EDGE_HOST, SERVER_NAME
from ._state import write_text

if TYPE_CHECKING:
    from pathlib import Path

CA_LIFETIME: Final = dt.timedelta(days=3650)
LEAF_LIFETIME: Final = dt.timedelta(days=365)
RENEW_BEFORE: Final = dt.timedelta(days=30)
_SKEW: Final = dt.timedelta(hours=1)

_Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def renewal_due(not_after: dt.datetime, now: dt.datetime) -> bool:
    """Say whether a certificate must be made anew: it ends within 30 days."""
    return not_after - now <= RENEW_BEFORE


def ensure_pki(folder: Path, lab: str, edge_address: str) -> bool:
    """Make what is missing or ends soon: authority, certificate, client's key; return whether any was made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    authority = _load(folder, "ca", now)
    made = authority is None
    if authority is None:
        authority = _make_ca(lab, now)
        _save(folder, "ca", authority)
    leaf = _load(folder, EDGE_HOST, now)
    names: list[x509.GeneralName] = [x509.DNSName(SERVER_NAME), x509.DNSName(EDGE_HOST)]
    names.append(x509.IPAddress(ipaddress.ip_address(edge_address)))
    if leaf is None or not _is_issued(leaf[0], authority[0], names):
        _save(folder, EDGE_HOST, _make_leaf(names, authority, now))
        made = True
    client = folder / "client.key"
    if not client.is_file():
        write_text(client, f"{new_key().key}\n")
        made = True
    return made


def _load(folder: Path, stem: str, now: dt.datetime) -> _Pair | None:
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{stem}.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{stem}.key").read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None  # an interrupted renewal left the new key beside the old certificate
    return None if renewal_due(certificate.not_valid_after_utc, now) else (certificate, key)


def _is_issued(leaf: x509.Certificate, authority: x509.Certificate, names: list[x509.GeneralName]) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - any reason makes it another authority's certificate
        return False
    return list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == names


def _builder(subject: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
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


def _make_ca(lab: str, now: dt.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(f"rackserve lab {lab} CA {now:%Y-%m-%d}", None, key)
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(now + CA_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(is_ca=True), critical=True).sign(key, hashes.SHA256()), key


def _make_leaf(names: list[x509.GeneralName], authority: _Pair, now: dt.datetime) -> _Pair:
    ca_certificate, ca_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(SERVER_NAME, ca_certificate.subject, key)
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(now + LEAF_LIFETIME)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(identifier, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate, key


def _save(folder: Path, stem: str, pair: _Pair) -> None:
    certificate, key = pair
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    write_text(folder / f"{stem}.key", pem)
    write_text(folder / f"{stem}.crt", certificate.public_bytes(serialization.Encoding.PEM).decode(), mode=0o644)
