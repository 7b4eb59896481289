"""Authorities of clients, and their lists: what nginx would choke on is refused before."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from rackserve import pki
from rackserve.edge import parse_clients, trust_problems

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an authority with an empty list."""
    pki.new_authority(tmp_path / "pki", "site CA")
    pki.ensure_list(tmp_path / "pki")
    return tmp_path / "pki"


def test_an_authority_with_its_list_will_do(folder: Path) -> None:
    assert trust_problems(str(folder / "ca.crt"), "") == []
    assert trust_problems(str(folder / "ca.crt"), str(folder / "crl.pem")) == []


def test_what_has_expired_is_reported(folder: Path) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=366)
    (problem,) = trust_problems(str(folder / "ca.crt"), str(folder / "crl.pem"), later)
    assert "the revocation list of CN=site CA expired on" in problem
    assert trust_problems(str(folder / "ca.crt"), "", later) == []
    (problem,) = trust_problems(str(folder / "ca.crt"), "", later + dt.timedelta(days=3650))
    assert "CN=site CA expired on" in problem


def test_every_authority_needs_a_list(folder: Path) -> None:
    other = pki.make_authority("other CA", dt.datetime.now(dt.UTC))
    both = folder / "both.pem"
    both.write_bytes((folder / "ca.crt").read_bytes() + other.certificate.public_bytes(Encoding.PEM))
    (problem,) = trust_problems(str(both), str(folder / "crl.pem"))
    assert "there is no revocation list of CN=other CA in it" in problem


def test_a_file_of_another_kind_is_refused(folder: Path) -> None:
    pki.ensure_server(folder, "edge1", ["edge1"])
    assert "CN=edge1 is not a CA certificate" in trust_problems(str(folder / "edge1.crt"), "")[0]
    assert "holds no certificate" in trust_problems(str(folder / "ca.key"), "")[0]
    assert "holds no certificate" in trust_problems(str(folder / "nowhere"), "")[0]
    assert "holds no revocation list (no X509 CRL)" in trust_problems(str(folder / "ca.crt"), str(folder / "ca.crt"))[0]


def test_a_client_may_name_its_certificates() -> None:
    raw = {"name": "a", "keys": [{"sha256": "1" * 64}], "certificates": ["CN=search,O=Example"]}
    assert parse_clients([raw], ["m"])[0].certificates == ["CN=search,O=Example"]
