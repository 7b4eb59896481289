"""What is cut or made smaller for the way is the whole again on the far side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rackserve._paths import program_file
from rackserve.bundle import diff, import_bundle, read_manifest, split, verify
from rackserve.errors import BundleError, InputError
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import MANIFEST, SIGNATURE, VERIFIER
from testing import bundles as making

if TYPE_CHECKING:
    from pathlib import Path

    from rackserve.bundle import Trust

LARGE = bytes(range(256)) * 20_000  # 5 MB


@pytest.fixture
def large(tmp_path: Path, keys: dict[str, Path]) -> Path:
    making.write_transport(tmp_path / "large", keys["lab"], wheel=LARGE)
    return tmp_path / "large"


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): verify_bundle.sha256_of(str(path))
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_content_travels_once(large: Path) -> None:
    assert (large / MANIFEST).read_text().count(making.DUPLICATE) == 1
    assert sum(path.stat().st_size == len(LARGE) for path in large.rglob("*")) == 1
    assert read_manifest(large).size < 2 * len(LARGE)


def test_parts_have_the_size_asked_for_and_are_the_same_each_time(large: Path, tmp_path: Path) -> None:
    parts = split(large, 1 << 20, tmp_path / "a")
    assert [part.size for part in parts[:-1]] == [1 << 20] * (len(parts) - 1)
    assert len(parts) >= 5
    split(large, 1 << 20, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_parts_import_as_the_whole_does(large: Path, tmp_path: Path, trust: Trust, state: Path) -> None:
    split(large, 1 << 20, tmp_path / "parts")
    assert verify(tmp_path / "parts", trust).manifest == read_manifest(large)
    home, _ = import_bundle(tmp_path / "parts", trust)
    from_parts = digests(home)
    assert [path.name for path in (state / "bundles").glob(".*-*")] == []
    shutil.rmtree(state)
    home, _ = import_bundle(large, trust)
    assert digests(home) == from_parts


def test_an_imported_bundle_is_cut_as_the_one_that_came(large: Path, tmp_path: Path, trust: Trust) -> None:
    home, _ = import_bundle(large, trust)
    split(large, 1 << 20, tmp_path / "a")
    split(home, 1 << 20, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_an_unsigned_bundle_does_not_travel(large: Path, tmp_path: Path) -> None:
    (large / SIGNATURE).unlink()
    with pytest.raises(BundleError, match="is not signed"):
        split(large, 1 << 20, tmp_path / "a")


def test_parts_are_one_tar_archive(large: Path, tmp_path: Path, trust: Trust) -> None:
    split(large, 1 << 20, tmp_path / "parts")
    (tmp_path / "out").mkdir()
    subprocess.run(["sh", "-c", "cat parts/*.0* | tar -x -C out"], cwd=tmp_path, check=True)
    assert verify(tmp_path / "out", trust).manifest == read_manifest(large)


def test_a_bare_machine_unpacks_parts(large: Path, tmp_path: Path, trust: Trust) -> None:
    split(large, 1 << 20, tmp_path / "parts")
    (tmp_path / "signers").write_text(trust.signers)
    argv = [sys.executable, str(program_file(VERIFIER)), "unpack", "parts", "out", "--signers", "signers"]
    subprocess.run(argv, cwd=tmp_path, check=True)
    assert (tmp_path / "out" / making.DUPLICATE).read_bytes() == LARGE
    assert making.problems(tmp_path / "out", trust) == ""


def test_a_part_that_is_too_small_or_a_folder_that_exists_is_refused(large: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1 MB"):
        split(large, 1000, tmp_path / "parts")
    with pytest.raises(InputError, match="exists"):
        split(large, 1 << 20, large)


@pytest.mark.parametrize("old", ["large", f"large/{MANIFEST}"], ids=["a folder", "its manifest alone"])
def test_a_difference_makes_the_whole(large: Path, keys: dict[str, Path], trust: Trust, state: Path, old: str) -> None:
    tmp_path = large.parent
    making.write_transport(tmp_path / "new", keys["lab"], version=2, wheel=LARGE + b"!")
    found = diff(tmp_path / old, tmp_path / "new", tmp_path / "diff")
    assert (found.files, found.size) == (1, len(LARGE) + 1)
    import_bundle(large, trust)
    home, _ = import_bundle(tmp_path / "diff", trust)
    from_difference = digests(home)
    shutil.rmtree(state)
    home, _ = import_bundle(tmp_path / "new", trust)
    assert digests(home) == from_difference


def test_a_difference_to_what_is_not_there_is_refused(
    large: Path, tmp_path: Path, keys: dict[str, Path], trust: Trust
) -> None:
    making.write_transport(tmp_path / "new", keys["lab"], version=2)
    diff(large, tmp_path / "new", tmp_path / "diff")
    with pytest.raises(BundleError, match=r"locks/.* is missing, here and among the bundles imported before"):
        import_bundle(tmp_path / "diff", trust)


def test_a_difference_upon_an_altered_store_is_refused(
    large: Path, tmp_path: Path, keys: dict[str, Path], trust: Trust, state: Path
) -> None:
    making.write_transport(tmp_path / "new", keys["lab"], version=2)
    diff(large, tmp_path / "new", tmp_path / "diff")
    import_bundle(large, trust)
    entry = next(entry for entry in read_manifest(large).files if entry.path == making.LOCK)
    (state / "bundles" / entry.blob).write_bytes(b"x" * entry.size)
    with pytest.raises(BundleError, match=r"locks/.* is missing, here and among"):
        import_bundle(tmp_path / "diff", trust)


def test_a_difference_travels_in_parts(large: Path, tmp_path: Path, keys: dict[str, Path], trust: Trust) -> None:
    making.write_transport(tmp_path / "new", keys["lab"], version=2, wheel=LARGE + b"!")
    diff(large, tmp_path / "new", tmp_path / "diff")
    split(tmp_path / "diff", 1 << 20, tmp_path / "parts")
    import_bundle(large, trust)
    _, verified = import_bundle(tmp_path / "parts", trust)
    assert verified.manifest.version == 2


def test_a_manifest_is_the_same_whenever_and_wherever_it_is_made(tmp_path: Path, keys: dict[str, Path]) -> None:
    first = making.write_transport(tmp_path / "a", keys["lab"])
    umask = os.umask(0o077)
    try:
        second = making.write_transport(tmp_path / "elsewhere", keys["untrusted"])
    finally:
        os.umask(umask)
    assert first.id == second.id
    assert json.loads((tmp_path / "a" / MANIFEST).read_text())["version"] == 1
