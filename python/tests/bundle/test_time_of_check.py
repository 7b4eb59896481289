"""A medium that is written to while it is read: what is used is what was verified."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from rackserve.bundle import import_bundle, split
from rackserve.bundle._sign import attest
from rackserve.errors import BundleError
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import MANIFEST, SIGNATURE, Entry
from testing import bundles as making

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rackserve.bundle import Trust


def after_the_first_copy(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act once, when the first file of a bundle was copied and the others were not."""
    acts = [act]
    real = verify_bundle.copy_verified

    def copy_verified(root: str, entry: Entry, target: str) -> str | None:
        found = real(root, entry, target)
        if acts:
            acts.pop()()
        return found

    for module in (verify_bundle, verify_bundle._unpack):
        monkeypatch.setattr(module, "copy_verified", copy_verified)


@pytest.fixture(params=["other bytes", "more bytes", "link", "pipe", "nothing"])
def reason(request: pytest.FixtureRequest, good_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Swap the content that is read last, once the first one was copied; give what the refusal says of it."""

    class Serial(ThreadPoolExecutor):
        def __init__(self) -> None:
            super().__init__(max_workers=1)

    monkeypatch.setattr(verify_bundle._files, "ThreadPoolExecutor", Serial)
    path = max(good_bundle.glob("blobs/*/*"))
    size = path.stat().st_size
    swaps: dict[str, tuple[Callable[[], object], str]] = {
        "other bytes": (lambda: path.write_bytes(b"E" * size), "was altered"),
        "more bytes": (lambda: path.write_bytes(b"E" * (size + 1)), f"has {size + 1} bytes"),
        "link": (lambda: path.symlink_to("/etc/hostname"), "is a link"),
        "pipe": (lambda: os.mkfifo(path), "is not a plain file"),
        "nothing": (lambda: None, "is missing"),
    }
    make, said = swaps[request.param]
    after_the_first_copy(monkeypatch, lambda: (path.rename(good_bundle.with_name("aside")), make()))
    return f"blobs/{path.parent.name}/{path.name} {said}"


def test_a_content_swapped_while_others_are_placed_is_refused(
    good_bundle: Path, trust: Trust, state: Path, reason: str
) -> None:
    with pytest.raises(BundleError, match=reason):
        import_bundle(good_bundle, trust)
    assert not (state / "bundles/current").exists()


def test_a_machine_unpacks_no_content_that_was_swapped(
    good_bundle: Path, trust: Trust, tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    (tmp_path / "signers").write_text(trust.signers)
    argv = ["unpack", str(good_bundle), str(tmp_path / "out"), "--signers", str(tmp_path / "signers")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["verify_bundle.pyz", *argv])
        assert verify_bundle.main() == 1
    assert reason in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


@pytest.mark.parametrize("swap", ["before the copy is opened", "while it is copied"])
def test_a_copy_is_compared_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"good")
    entry = Entry("a", 4, verify_bundle.sha256_of(str(source)))
    real = verify_bundle._files._status_problem
    calls = []

    def status_problem(*args: object) -> str | None:
        found = real(*args)  # type: ignore[arg-type]
        calls.append(args)
        if len(calls) == (1 if "before" in swap else 2):
            source.write_bytes(b"EVIL")
        return found

    monkeypatch.setattr(verify_bundle._files, "_status_problem", status_problem)
    assert verify_bundle.copy_verified(str(tmp_path), entry, str(tmp_path / "b")) == (
        "a was altered: its sha256 is not the manifest's"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, "attestations/audit.json", "attestations/audit.json.sig"])
def test_what_was_verified_is_what_is_kept_of_signed_files(
    good_bundle: Path, trust: Trust, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    attest(good_bundle, "audit", {"ok": True}, keys["lab"])
    good = (good_bundle / name).read_bytes()
    after_the_first_copy(monkeypatch, lambda: (good_bundle / name).write_bytes(b"EVIL"))
    home, verified = import_bundle(good_bundle, trust)
    assert (good_bundle / name).read_bytes() == b"EVIL"
    assert (home / name).read_bytes() == good
    assert making.problems(home, trust) == ""
    assert verified.attested["audit"]["ok"] is True


@pytest.mark.parametrize("form", ["whole", "unpacked"])
def test_a_store_shares_no_inode_with_a_medium(
    good_bundle: Path, trust: Trust, state: Path, tmp_path: Path, form: str
) -> None:
    source = good_bundle
    if form == "unpacked":
        home, _ = import_bundle(good_bundle, trust)
        source = tmp_path / "unpacked"
        shutil.copytree(home, source)
        shutil.rmtree(state)
    medium = {path.stat().st_ino for path in source.rglob("*")}
    home, _ = import_bundle(source, trust)
    kept = [path for path in (state / "bundles").rglob("*") if path.is_file()]
    assert medium.isdisjoint(path.stat().st_ino for path in kept)
    for path in source.rglob("*"):
        if path.is_file():
            with path.open("r+b") as written:
                written.write(b"EVIL")
    assert making.problems(home, trust) == ""


def test_parts_are_joined_without_a_second_copy(good_bundle: Path, trust: Trust, tmp_path: Path, state: Path) -> None:
    split(good_bundle, 1 << 20, tmp_path / "parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_bundle, "copy_verified", None)
        home, _ = import_bundle(tmp_path / "parts", trust)
    assert making.problems(home, trust) == ""
    assert list((state / "bundles").glob(".*-*")) == []


def test_a_store_that_is_imported_from_itself_stays_whole(good_bundle: Path, trust: Trust, state: Path) -> None:
    home, _ = import_bundle(good_bundle, trust)
    shutil.rmtree(state / "bundles/blobs")
    assert import_bundle(home, trust)[0] == home
    assert making.problems(home, trust) == ""


def test_a_clone_takes_no_space_and_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"good")
    entry = Entry("a", 4, verify_bundle.sha256_of(str(tmp_path / "a")))
    asked = []

    def clone(target: int, request: int, _: int) -> None:
        asked.append(request)
        os.write(target, content)

    monkeypatch.setattr("fcntl.ioctl", clone)
    content = b"good"
    assert verify_bundle.clones(str(tmp_path / "a"), str(tmp_path))
    assert verify_bundle.copy_verified(str(tmp_path), entry, str(tmp_path / "b")) is None
    assert (tmp_path / "b").read_bytes() == b"good"
    content = b"evil"
    assert "was altered" in str(verify_bundle.copy_verified(str(tmp_path), entry, str(tmp_path / "c")))
    assert asked == [0x40049409] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_system_that_cannot_clone_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.ioctl", refuse)
    (tmp_path / "a").write_bytes(b"good")
    entry = Entry("a", 4, verify_bundle.sha256_of(str(tmp_path / "a")))
    assert not verify_bundle.clones(str(tmp_path / "a"), str(tmp_path))
    assert verify_bundle.copy_verified(str(tmp_path), entry, str(tmp_path / "b")) is None


def test_a_disk_that_is_full_is_foreseen_unless_it_clones(
    good_bundle: Path, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    monkeypatch.setattr(verify_bundle, "clones", lambda *_: False)
    with pytest.raises(BundleError, match="GB free and it needs"):
        import_bundle(good_bundle, trust)
    monkeypatch.setattr(verify_bundle, "clones", lambda *_: True)
    import_bundle(good_bundle, trust)
