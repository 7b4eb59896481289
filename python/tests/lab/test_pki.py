from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from rackserve.lab._pki import ensure_pki
from rackserve.pki import _certificates

if TYPE_CHECKING:
    from pathlib import Path


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_edge_certificate_is_the_authoritys_and_names_the_server(tmp_path: Path) -> None:
    assert ensure_pki(tmp_path, "demo", "10.89.0.21")
    authority, leaf = certificate(tmp_path / "ca.crt"), certificate(tmp_path / "edge1.crt")
    leaf.verify_directly_issued_by(authority)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["rackserve.lab", "edge1"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.89.0.21"]
    assert authority.not_valid_after_utc - leaf.not_valid_after_utc > dt.timedelta(days=3000)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("ca.key", "edge1.key")} == {0o600}


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    ensure_pki(tmp_path, "demo", "10.89.0.21")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not ensure_pki(tmp_path, "demo", "10.89.0.21")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_leaf_near_its_end_is_renewed_by_the_same_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_certificates, "LEAF_LIFETIME", dt.timedelta(days=29))
    ensure_pki(tmp_path, "demo", "10.89.0.21")
    monkeypatch.undo()
    authority, leaf = (tmp_path / "ca.crt").read_bytes(), (tmp_path / "edge1.crt").read_bytes()
    assert ensure_pki(tmp_path, "demo", "10.89.0.21")
    assert (tmp_path / "ca.crt").read_bytes() == authority
    assert (tmp_path / "edge1.crt").read_bytes() != leaf


@pytest.mark.parametrize("lost", ["ca.key", "ca.crt", "edge1.key"])
def test_a_lost_file_is_repaired_to_a_matching_set(tmp_path: Path, lost: str) -> None:
    ensure_pki(tmp_path, "demo", "10.89.0.21")
    (tmp_path / lost).unlink()
    assert ensure_pki(tmp_path, "demo", "10.89.0.21")
    certificate(tmp_path / "edge1.crt").verify_directly_issued_by(certificate(tmp_path / "ca.crt"))
    assert not ensure_pki(tmp_path, "demo", "10.89.0.21")


def test_another_address_gives_another_leaf(tmp_path: Path) -> None:
    ensure_pki(tmp_path, "demo", "10.89.0.21")
    assert ensure_pki(tmp_path, "demo", "10.89.9.21")
