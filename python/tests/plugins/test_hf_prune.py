"""Only what nothing uses is removed, and nothing that another snapshot needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackserve.ansible.modules import hf_prune

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW, OTHER = "1" * 40, "2" * 40, "3" * 40


def put(home: Path, repo: str, revision: str, files: dict[str, str]) -> None:
    folder = home / "hub" / f"models--{repo.replace('/', '--')}"
    for name in ("blobs", "refs", "manifests", f"snapshots/{revision}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / "blobs" / f"digest-of-{text}").write_text(text)
        (folder / "snapshots" / revision / name).symlink_to(f"../../blobs/digest-of-{text}")
    (folder / "refs/main").write_text(revision)
    (folder / f"manifests/{revision}.json").write_text("[]")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give a cache with two commits of one model, which share a file, and one of another."""
    put(tmp_path, "o/m", OLD, {"config.json": "same", "model.safetensors": "old"})
    put(tmp_path, "o/m", NEW, {"config.json": "same", "model.safetensors": "newer"})
    put(tmp_path, "o/x", OTHER, {"config.json": "other"})
    return tmp_path


def folder(home: Path, repo: str, revision: str) -> str:
    return hf_prune.snapshot_of(str(home), repo, revision)


def test_what_is_kept_or_mentioned_is_used(home: Path) -> None:
    found = hf_prune.snapshots_in(str(home))
    assert len(found) == 3
    kept = [folder(home, "o/m", NEW)]
    assert hf_prune.unused(found, kept, "") == [folder(home, "o/m", OLD), folder(home, "o/x", OTHER)]
    assert hf_prune.unused(found, kept, f"revision: {OLD}\n- x=/hub/models--o--x/snapshots/{OTHER}") == []


def test_the_arguments_of_every_instance_count(tmp_path: Path) -> None:
    generation = tmp_path / "a/generations/0123456789"
    generation.mkdir(parents=True)
    (generation / "engine.yaml").write_text(f"revision: {OLD}")
    (generation / "engine.env").write_text(f"X={NEW}")
    assert hf_prune.mentioned(str(tmp_path)) == f"revision: {OLD}"
    assert hf_prune.mentioned(str(tmp_path / "none")) == ""


def test_a_snapshot_is_described(home: Path) -> None:
    described = hf_prune.described(folder(home, "o/m", OLD))
    assert described == {"repo": "o/m", "revision": OLD, "size": len("same" + "old")}


def test_a_snapshot_goes_without_what_another_needs(home: Path) -> None:
    hf_prune.remove_snapshot(folder(home, "o/m", OLD))
    left = home / "hub/models--o--m"
    assert sorted(path.name for path in (left / "blobs").iterdir()) == ["digest-of-newer", "digest-of-same"]
    assert (left / f"snapshots/{NEW}/config.json").read_text() == "same"
    assert [path.name for path in (left / "manifests").iterdir()] == [f"{NEW}.json"]
    assert (left / "refs/main").read_text() == NEW


def test_a_name_of_what_went_goes_too_and_the_last_one_takes_the_repository(home: Path) -> None:
    hf_prune.remove_snapshot(folder(home, "o/m", NEW))
    assert not (home / "hub/models--o--m/refs/main").exists()
    hf_prune.remove_snapshot(folder(home, "o/m", OLD))
    assert [path.name for path in (home / "hub").iterdir()] == ["models--o--x"]
