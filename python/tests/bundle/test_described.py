"""What a report says of a bundle: read by its signatures alone."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from rackserve.bundle import fingerprint_of, sha256_of
from rackserve.bundle._sign import sign
from rackserve.programs.verify_bundle import MANIFEST, SIGNATURE
from rackserve.report import describe_bundle
from testing import bundles as making

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def trust_file(tmp_path: Path, keys: dict[str, Path]) -> Path:
    path = tmp_path / "trust.yml"
    path.write_text(f"signers:\n  - name: lab\n    key: {making.public(keys['lab'])}\n", encoding="utf-8")
    return path


def test_a_fingerprint_is_the_one_that_ssh_keygen_prints(good_bundle: Path, keys: dict[str, Path]) -> None:
    printed = subprocess.run(["ssh-keygen", "-l", "-f", keys["lab"]], capture_output=True, text=True, check=True)
    assert fingerprint_of(good_bundle / SIGNATURE) == printed.stdout.split()[1]


def test_a_good_bundle(good_bundle: Path, trust_file: Path) -> None:
    found = describe_bundle(good_bundle, trust_file)
    assert (found.problem, found.name, found.version, found.signer) == ("", "lab", 1, "lab")
    assert found.digest == sha256_of(good_bundle / MANIFEST)
    assert (found.runtimes, found.models) == (("0.32.0-abc",), (f"org/name at {making.REVISION}",))
    assert found.audit == "none (never)"


def test_a_bundle_signed_by_an_untrusted_key(good_bundle: Path, trust_file: Path, keys: dict[str, Path]) -> None:
    sign(good_bundle, keys["untrusted"])
    found = describe_bundle(good_bundle, trust_file)
    assert "which is not a trusted key" in found.problem
    assert found.name == ""


def test_no_bundle(tmp_path: Path, trust_file: Path) -> None:
    assert "manifest.json is missing" in describe_bundle(tmp_path / "none", trust_file).problem
    assert "trust.yml" in describe_bundle(tmp_path, tmp_path / "no" / "trust.yml").problem
