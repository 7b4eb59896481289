"""An authority's folder: what is made, when it is made anew, and who may read it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from rackserve import pki
from rackserve.errors import InputError
from rackserve.pki import _certificates

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime(2030, 6, 1, tzinfo=dt.UTC)
NAMES = ("llm.example", "edge1", "192.0.2.21", "192.0.2.20")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with an authority."""
    pki.new_authority(tmp_path / "pki", "site CA")
    return tmp_path / "pki"


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize(("days", "due"), [(31, False), (30, True), (1, True), (-1, True)])
def test_a_certificate_is_due_in_its_last_thirty_days(days: int, due: bool) -> None:  # noqa: FBT001 - a table row
    assert pki.renewal_due(NOW + dt.timedelta(days=days), NOW) is due


def test_keys_are_for_their_owner_alone(folder: Path) -> None:
    pki.ensure_server(folder, "edge1", NAMES)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.key")} == {0o600}


def test_there_is_one_authority_in_a_folder(folder: Path) -> None:
    with pytest.raises(InputError, match=r"ca\.crt exists; `rackserve ca renew`"):
        pki.new_authority(folder, "another")


def test_an_edge_gets_a_certificate_for_all_of_its_names_once(folder: Path) -> None:
    assert pki.ensure_server(folder, "edge1", NAMES) == "made"
    made = certificate(folder / "edge1.crt")
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["llm.example", "edge1"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.21", "192.0.2.20"]
    assert pki.ensure_server(folder, "edge1", NAMES) == "kept"
    assert certificate(folder / "edge1.crt") == made


@pytest.mark.parametrize("change", ["names", "soon", "asked for", "authority"])
def test_it_is_made_anew_when_it_must_be(folder: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if change == "soon":
        monkeypatch.setattr(_certificates, "LEAF_LIFETIME", dt.timedelta(days=29))
    pki.ensure_server(folder, "edge1", NAMES)
    before = certificate(folder / "edge1.crt")
    monkeypatch.undo()
    if change == "authority":
        pki.save(folder, "ca", pki.make_authority("successor", dt.datetime.now(dt.UTC)))
    names = NAMES[:3] if change == "names" else NAMES
    asked = {"renew": change == "asked for"}
    assert pki.ensure_server(folder, "edge1", names, **asked, write=False) == "renewed"
    assert certificate(folder / "edge1.crt") == before, "reported only"
    assert pki.ensure_server(folder, "edge1", names, **asked) == "renewed"
    assert certificate(folder / "edge1.crt") != before


def test_without_the_authoritys_key_nothing_is_made(folder: Path) -> None:
    (folder / "ca.key").unlink()
    assert pki.ensure_server(folder, "edge1", NAMES) == "absent"
    assert not (folder / "edge1.crt").exists()
    with pytest.raises(InputError, match="has no authority with its key"):
        pki.ensure_client(folder, "search")


def test_no_certificate_outlives_its_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_certificates, "AUTHORITY_LIFETIME", dt.timedelta(days=100))
    authority = pki.make_authority("short", NOW)
    leaf = pki.issue_server(NAMES, authority, NOW)
    assert leaf.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_what_an_authority_signed_holds_under_its_renewal_and_the_other_way_round() -> None:
    old = pki.make_authority("site CA", NOW)
    new = pki.renew_authority(old, NOW + dt.timedelta(days=3000))
    assert new.certificate.not_valid_after_utc > old.certificate.not_valid_after_utc
    for signer, holder in ((old, new), (new, old)):
        pki.issue_server(NAMES, signer, NOW).certificate.verify_directly_issued_by(holder.certificate)


def test_a_clients_certificate_is_no_servers(folder: Path) -> None:
    assert pki.ensure_client(folder, "search") == "made"
    made = certificate(folder / "client-search.crt")
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert made.subject.rfc4514_string() == "CN=search"
    assert pki.ensure_client(folder, "search") == "kept"
    with pytest.raises(InputError, match=r"'\.\./ca' cannot be a client's name"):
        pki.ensure_client(folder, "../ca")


def test_the_list_keeps_what_was_revoked_before(folder: Path) -> None:
    for name in ("one", "two"):
        pki.ensure_client(folder, name)
        pki.revoke(folder, name)
    found = x509.load_pem_x509_crl((folder / "crl.pem").read_bytes())
    serials = {certificate(folder / f"client-{name}.crt").serial_number for name in ("one", "two")}
    assert {entry.serial_number for entry in found} == serials
    assert found.is_signature_valid(certificate(folder / "ca.crt").public_key())  # type: ignore[arg-type]
    assert not pki.ensure_list(folder)
    with pytest.raises(InputError, match="no certificate of a client 'three'"):
        pki.revoke(folder, "three")


def test_rows_tell_what_ends_first(folder: Path) -> None:
    pki.ensure_server(folder, "edge1", NAMES)
    pki.ensure_client(folder, "search")
    assert [(row.name, row.kind, row.due) for row in pki.rows(folder)][-1] == ("ca", "authority", False)
    later = pki.rows(folder, dt.datetime.now(dt.UTC) + dt.timedelta(days=340))
    assert {row.name: row.due for row in later} == {"edge1": True, "client-search": True, "ca": False}


def test_a_server_shows_a_certificate_with_its_own_key_only(folder: Path) -> None:
    pki.ensure_server(folder, "edge1", NAMES)
    assert pki.pair_problem(str(folder / "edge1.crt"), str(folder / "edge1.key")) == ""
    for key in (folder / "ca.key", folder / "edge1.crt", folder / "nowhere"):
        said = pki.pair_problem(str(folder / "edge1.crt"), str(key))
        assert said.startswith(f"{folder / 'edge1.crt'} and {key} are not a certificate and its own, unencrypted key: ")


def test_a_server_takes_no_encrypted_key(folder: Path) -> None:
    pair = pki.load(folder, "ca")
    assert pair is not None
    hidden = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word")
    )
    (folder / "hidden.key").write_bytes(hidden)
    assert "unencrypted key" in pki.pair_problem(str(folder / "ca.crt"), str(folder / "hidden.key"))
