"""`rackserve ca`, on a folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from rackserve.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the folder of an authority."""
    assert main(["ca", "new", "--folder", str(tmp_path / "pki"), "--name", "Site CA"]) == 0
    return tmp_path / "pki"


def test_a_new_authority_has_a_key_and_an_empty_list(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["ca.crt", "ca.key", "crl.pem"]
    assert len(x509.load_pem_x509_crl((folder / "crl.pem").read_bytes())) == 0


def test_a_second_one_in_its_place_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ca", "new", "--folder", str(folder)]) == 2
    assert "exists; `rackserve ca renew`" in capsys.readouterr().err


def test_a_client_is_issued_renewed_revoked_and_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    issue = ["ca", "issue", "--folder", str(folder), "--client", "search"]
    found = []
    for command in (issue, issue, [*issue, "--renew"]):
        capsys.readouterr()
        assert main(command) == 0
        found.append(capsys.readouterr().out.split()[-1])
    assert found == ["made", "kept", "renewed"]
    assert main(["ca", "revoke", "search", "--folder", str(folder)]) == 0
    assert len(x509.load_pem_x509_crl((folder / "crl.pem").read_bytes())) == 1
    capsys.readouterr()
    assert main(["ca", "list", "--json", "--folder", str(folder)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["kind"], row["subject"]) for row in rows] == [
        ("client-search", "client", "CN=search"),
        ("ca", "authority", "CN=Site CA"),
    ]
    assert main(["ca", "list", "--folder", str(folder)]) == 0
    assert "CN=Site CA" in capsys.readouterr().out


def test_renewing_keeps_the_key(folder: Path) -> None:
    key, before = (folder / "ca.key").read_bytes(), (folder / "ca.crt").read_bytes()
    assert main(["ca", "renew", "--folder", str(folder)]) == 0
    assert (folder / "ca.key").read_bytes() == key
    assert (folder / "ca.crt").read_bytes() != before


@pytest.mark.parametrize("command", [["renew"], ["issue", "--client", "a"], ["revoke", "a"], ["list"]])
def test_without_an_authority_nothing_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main(["ca", *command, "--folder", str(tmp_path / "none")]) == 2
    assert "rackserve ca" in capsys.readouterr().err
