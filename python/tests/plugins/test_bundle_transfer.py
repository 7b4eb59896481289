"""A host takes only wanted bytes under wanted names."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.ansible.action.bundle_transfer import batches, pack
from rackserve.ansible.modules.bundle_compare import missing_files, unwanted
from rackserve.ansible.modules.bundle_unpack import unpack
from rackserve.bundle import Entry
from rackserve.programs.verify_bundle import Digests

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"hello"
ENTRY = Entry("a/b.txt", 5, hashlib.sha256(DATA).hexdigest())
WANTED = [ENTRY._asdict()]


def missing(root: Path) -> list[str]:
    return missing_files(str(root), [ENTRY], Digests())


def archive(path: Path, name: str = "a/b.txt", data: bytes = DATA, **attributes: Any) -> str:
    with tarfile.open(path, "w") as target:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for key, value in attributes.items():
            setattr(member, key, value)
        target.addfile(member, io.BytesIO(data))
    return str(path)


def test_a_wanted_member_is_placed_readable(tmp_path: Path) -> None:
    root = tmp_path / "root"
    unpack(str(root), archive(tmp_path / "t.tar", mode=0o4755), WANTED, Digests())
    assert (root / "a/b.txt").read_bytes() == DATA
    assert (root / "a/b.txt").stat().st_mode & 0o7777 == 0o644
    assert missing(root) == []


def test_what_is_not_wanted_is_found_links_to_folders_too(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.txt").write_bytes(DATA)
    (tmp_path / "a/extra").write_bytes(DATA)
    (tmp_path / "a/folder").symlink_to("/etc")
    (tmp_path / "empty").mkdir()
    assert unwanted(str(tmp_path), [ENTRY]) == ["a/extra", "a/folder"]


@pytest.mark.parametrize(
    "member",
    [
        {"name": "../b.txt"},
        {"name": "/a/b.txt"},
        {"name": "other"},
        {"data": b"hellO"},
        {"data": b"hello!"},
        {"data": b"", "type": tarfile.SYMTYPE, "linkname": "/etc/shadow"},
        {"data": b"", "type": tarfile.LNKTYPE, "linkname": "x"},
        {"data": b"", "type": tarfile.CHRTYPE},
        {"data": b"", "type": tarfile.FIFOTYPE},
    ],
    ids=["traversal", "absolute", "planted", "flipped", "longer", "symlink", "hard link", "device", "fifo"],
)
def test_any_other_member_is_refused_and_leaves_no_file(tmp_path: Path, member: dict[str, Any]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ValueError, match="run the play again"):
        unpack(str(root), archive(tmp_path / "t.tar", **member), WANTED, Digests())
    assert [path for path in root.rglob("*") if not path.is_dir()] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "t.tar"]


def test_absent_altered_and_linked_files_are_missing(tmp_path: Path) -> None:
    assert missing(tmp_path) == ["a/b.txt"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.txt").write_bytes(b"hellO")
    assert missing(tmp_path) == ["a/b.txt"]
    (tmp_path / "a/c.txt").write_bytes(DATA)
    (tmp_path / "a/b.txt").unlink()
    (tmp_path / "a/b.txt").symlink_to("c.txt")
    assert missing(tmp_path) == ["a/b.txt"]


def test_what_is_not_wanted_is_found(tmp_path: Path) -> None:
    (tmp_path / "old.whl").write_bytes(b"")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.txt").write_bytes(b"")
    assert unwanted(str(tmp_path), [ENTRY]) == ["old.whl"]


def test_batches_hold_everything_once_within_the_limit() -> None:
    entries = tuple(Entry(str(n), size, "") for n, size in enumerate([4, 4, 4, 20, 1, 1]))
    groups = list(batches(entries, limit=8))
    assert [entry for group in groups for entry in group] == list(entries)
    assert all(len(group) == 1 or sum(e.size for e in group) <= 8 for group in groups)
    assert len(groups) == 4
    assert list(batches((), limit=8)) == []


def test_two_names_of_one_content_arrive_as_two_files(tmp_path: Path) -> None:
    bundle, root, sent = tmp_path / "bundle", tmp_path / "root", tmp_path / "t.tar"
    bundle.mkdir()
    (bundle / "a").write_bytes(DATA)
    (bundle / "b").hardlink_to(bundle / "a")
    entries = [Entry(name, len(DATA), hashlib.sha256(DATA).hexdigest()) for name in ("a", "b")]
    pack(bundle, entries, {}, str(sent))
    unpack(str(root), str(sent), [entry._asdict() for entry in entries], Digests())
    assert [(root / entry.path).read_bytes() for entry in entries] == [DATA, DATA]
