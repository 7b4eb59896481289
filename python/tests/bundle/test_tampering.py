"""Every way to tamper with a bundle is refused by its own name, and a good one is accepted."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rackserve._paths import program_file
from rackserve.bundle import import_bundle, read_manifest, split, verify
from rackserve.bundle._sign import sign
from rackserve.errors import BundleError
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import MANIFEST, SIGNATURE, VERIFIER, BundleRejected
from testing import bundles as making

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackserve.bundle import Trust

BOTH = pytest.mark.parametrize(("tamper", "reason"), making.TAMPERINGS.values(), ids=making.TAMPERINGS)


def run_verifier(*arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(program_file(VERIFIER)), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_good_bundle_is_accepted(good_bundle: Path, trust: Trust) -> None:
    assert verify(good_bundle, trust).signer == "lab"
    home, _ = import_bundle(good_bundle, trust)
    assert making.problems(home, trust) == ""
    assert verify(home, trust).manifest == read_manifest(good_bundle)


def test_the_name_of_a_wheel_may_have_an_epoch() -> None:
    assert verify_bundle.is_safe_path("controller/wheels/sdk-17!10.4.0-py3-none-any.whl")
    assert not verify_bundle.is_safe_path("controller/wheels/sdk-17%2110.4.0;py3-none-any.whl")


@BOTH
def test_it_is_refused_at_import(
    good_bundle: Path, trust: Trust, state: Path, tamper: Callable[[Path], object], reason: str
) -> None:
    tamper(good_bundle)
    with pytest.raises(BundleError, match=reason):
        import_bundle(good_bundle, trust)
    assert not (state / "bundles/current").exists()


@BOTH
def test_it_is_refused_in_use(good_bundle: Path, trust: Trust, tamper: Callable[[Path], object], reason: str) -> None:
    home, _ = import_bundle(good_bundle, trust)
    tamper(home)
    assert reason in making.problems(home, trust)


@BOTH
def test_it_is_refused_by_the_verifier_alone(
    good_bundle: Path, trust: Trust, tmp_path: Path, tamper: Callable[[Path], object], reason: str
) -> None:
    (tmp_path / "signers").write_text(trust.signers)
    assert run_verifier("check", good_bundle, "--signers", tmp_path / "signers").returncode == 0
    tamper(good_bundle)
    done = run_verifier("unpack", good_bundle, tmp_path / "out", "--signers", tmp_path / "signers")
    assert done.returncode == 1
    assert reason in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("tamper", "reason"), making.EDITS.values(), ids=making.EDITS)
def test_a_manifest_that_says_too_much_is_refused_whoever_signed_it(
    good_bundle: Path, trust: Trust, keys: dict[str, Path], tamper: Callable[[Path], None], reason: str
) -> None:
    tamper(good_bundle)
    sign(good_bundle, keys["lab"])
    with pytest.raises(BundleError, match=reason):
        import_bundle(good_bundle, trust)


def test_a_key_twice_in_the_manifest_is_refused(good_bundle: Path, trust: Trust, keys: dict[str, Path]) -> None:
    text = (good_bundle / MANIFEST).read_text()
    (good_bundle / MANIFEST).write_text(text.replace('{\n "', '{\n "version": 9,\n "', 1))
    sign(good_bundle, keys["lab"])
    with pytest.raises(BundleError, match="a key occurs twice"):
        import_bundle(good_bundle, trust)


def test_a_signature_by_an_untrusted_key_is_refused(good_bundle: Path, trust: Trust, keys: dict[str, Path]) -> None:
    sign(good_bundle, keys["untrusted"])
    with pytest.raises(BundleError, match="not a trusted key; trusted are: lab"):
        import_bundle(good_bundle, trust)


def test_a_signature_for_another_purpose_is_refused(good_bundle: Path, trust: Trust, keys: dict[str, Path]) -> None:
    (good_bundle / SIGNATURE).unlink()
    argv: list[str | Path] = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", keys["lab"], good_bundle / MANIFEST]
    subprocess.run(argv, check=True, capture_output=True)
    with pytest.raises(BundleError, match=r"not a signature of manifest\.json"):
        import_bundle(good_bundle, trust)


def test_a_key_signs_until_its_last_day(good_bundle: Path, keys: dict[str, Path]) -> None:
    assert verify(good_bundle, making.trust_in(keys["lab"], valid_before="20991231Z")).signer == "lab"
    with pytest.raises(BundleError, match=r"of lab is expired or revoked: .*key has expired"):
        verify(good_bundle, making.trust_in(keys["lab"], valid_before="20200131Z"))


def test_a_revoked_key_signs_no_more(good_bundle: Path, keys: dict[str, Path]) -> None:
    assert verify(good_bundle, making.trust_in(keys["lab"], revoked=(keys["untrusted"],))).signer == "lab"
    with pytest.raises(BundleError, match=r"of lab is expired or revoked"):
        verify(good_bundle, making.trust_in(keys["lab"], revoked=(keys["lab"],)))


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type = kind
    for key, value in more.items():
        setattr(found, key, value)
    return found


def head_of(bundle: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(member(name), (bundle / name).read_bytes()) for name in (MANIFEST, SIGNATURE)]


MEMBERS: dict[str, tuple[tuple[tarfile.TarInfo, bytes], str]] = {
    "traversal": ((member("../../etc/cron.d/x"), b"evil"), "not in the manifest"),
    "absolute": ((member("/etc/cron.d/x"), b"evil"), "not in the manifest"),
    "unknown blob": ((member("blobs/aa/" + "a" * 64), b"evil"), "not in the manifest"),
    "symbolic link": ((member("blobs/x", tarfile.SYMTYPE, linkname="/etc"), b""), "not a plain file"),
    "hard link": ((member("blobs/x", tarfile.LNKTYPE, linkname=MANIFEST), b""), "not a plain file"),
    "character device": ((member("blobs/x", tarfile.CHRTYPE), b""), "not a plain file"),
    "block device": ((member("blobs/x", tarfile.BLKTYPE), b""), "not a plain file"),
    "pipe": ((member("blobs/x", tarfile.FIFOTYPE), b""), "not a plain file"),
    "folder": ((member("blobs", tarfile.DIRTYPE), b""), "not a plain file"),
    "sparse file": ((member("blobs/x", tarfile.GNUTYPE_SPARSE), b""), "not a plain file"),
    "set-user-id": ((member("blobs/x", mode=0o4755), b"evil"), "not a plain file"),
    "long name": ((member("b" * 300), b"evil"), "not a plain file"),
    "a second manifest": ((member(MANIFEST), b"{}"), "not in the manifest"),
    "an attestation elsewhere": ((member("attestations/../x.json"), b"{}"), "not in the manifest"),
}


@pytest.mark.parametrize(("extra", "reason"), MEMBERS.values(), ids=MEMBERS)
def test_an_archive_writes_only_what_the_manifest_names(
    good_bundle: Path, tmp_path: Path, extra: tuple[tarfile.TarInfo, bytes], reason: str
) -> None:
    data = making.archive(*head_of(good_bundle), extra)
    before = {path for path in Path("/etc").rglob("*") if "cron" in path.name}
    with pytest.raises(BundleRejected, match=reason):
        verify_bundle.extract(
            io.BytesIO(data), str(tmp_path / "out"), lambda text, _: verify_bundle.parse_manifest(text)
        )
    assert {path for path in Path("/etc").rglob("*") if "cron" in path.name} == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MANIFEST, SIGNATURE]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda blob: [blob, blob], "occurs twice"),
        (lambda blob: [(blob[0], blob[1][:-1])], "its manifest says"),
        (lambda blob: [(blob[0], bytes(len(blob[1])))], "was altered"),
    ],
    ids=["twice", "another size", "other bytes"],
)
def test_an_archive_writes_only_the_bytes_of_the_manifest(
    good_bundle: Path, tmp_path: Path, change: Callable[..., list[tuple[tarfile.TarInfo, bytes]]], reason: str
) -> None:
    path = making.file_of(good_bundle)
    blobs = change((member(str(path.relative_to(good_bundle))), path.read_bytes()))
    members = [(member(found.name), data) for found, data in blobs]
    data = making.archive(*head_of(good_bundle), *members)
    with pytest.raises(BundleRejected, match=reason):
        verify_bundle.extract(
            io.BytesIO(data), str(tmp_path / "out"), lambda text, _: verify_bundle.parse_manifest(text)
        )


def test_nothing_is_written_before_the_manifest_is_trusted(good_bundle: Path, tmp_path: Path) -> None:
    blob = making.file_of(good_bundle)
    data = making.archive((member(str(blob.relative_to(good_bundle))), blob.read_bytes()), *head_of(good_bundle))
    with pytest.raises(BundleRejected, match="do not begin with"):
        verify_bundle.extract(
            io.BytesIO(data), str(tmp_path / "out"), lambda text, _: verify_bundle.parse_manifest(text)
        )
    assert list((tmp_path / "out").iterdir()) == []


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _swap(parts: Path) -> None:
    one, other = sorted(parts.glob("*.0*"))[:2]
    one.rename(parts / "x")
    other.rename(one)
    (parts / "x").rename(other)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda parts: _damage(sorted(parts.glob("*.0*"))[1]), r"\.002 was altered"),
        (lambda parts: sorted(parts.glob("*.0*"))[1].unlink(), r"\.002 is missing"),
        (lambda parts: sorted(parts.glob("*.0*"))[1].write_bytes(b""), r"\.002 has 0 bytes"),
        (_swap, r"\.001 was altered"),
        (lambda parts: next(parts.glob("*.json")).write_text("{}"), "not a list of parts"),
        (
            lambda parts: next(parts.glob("*.json")).write_text(
                '{"parts": [{"name": "../x", "size": 1, "sha256": ""}]}'
            ),
            "not a part's name in this folder",
        ),
    ],
    ids=["flipped byte", "missing", "empty", "swapped", "no list", "part elsewhere"],
)
def test_a_damaged_part_is_named(
    tmp_path: Path, keys: dict[str, Path], trust: Trust, damage: Callable[[Path], object], reason: str
) -> None:
    making.write_transport(tmp_path / "large", keys["lab"], wheel=bytes(range(256)) * 10_000)
    split(tmp_path / "large", 1 << 20, tmp_path / "parts")
    damage(tmp_path / "parts")
    with pytest.raises(BundleError, match=reason):
        import_bundle(tmp_path / "parts", trust)
