"""The control node's part of a bundle: what is packed, and what a bare machine makes of it."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from rackserve._paths import project_root
from rackserve.bundle import _controller
from rackserve.bundle._controller import (
    CONTROLLER_PACKAGES,
    LOCKS,
    build_controller,
    parse_status,
    project_tar,
    read_project,
)
from rackserve.bundle._manifest import scan
from rackserve.bundle._progress import Progress
from rackserve.errors import InputError
from rackserve.programs import bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOOTSTRAP = {f"python/src/rackserve/programs/{name}": name for name in ("bootstrap.sh", "bootstrap.py")}


def git(root: Path, *words: str) -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *settings, "-C", str(root), *words], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for name in ("site.yml", *(f"python/locks/{lock}" for lock in LOCKS), *BOOTSTRAP):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n")
    (root / "python/src/rackserve/programs/bootstrap.sh").chmod(0o755)
    (root / "linked.yml").symlink_to("site.yml")
    git(tmp_path, "init", "--quiet", str(root))
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first")
    return root


@pytest.fixture
def built(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Build below a folder of the given name, with wheels that cost nothing."""

    def download(lock: Path, into: Path, python: str, *_: object) -> None:
        into.mkdir(exist_ok=True)
        (into / f"{lock.stem}-1-cp{python.replace('.', '')}-none-any.whl").write_bytes(b"wheel")

    monkeypatch.setattr(_controller, "download", download)

    def build(name: str, root: Path = checkout) -> Path:
        monkeypatch.setattr(_controller, "project_root", lambda: root)
        draft, scratch = tmp_path / name, tmp_path / f"{name}-scratch"
        draft.mkdir()
        scratch.mkdir()
        part = build_controller(draft, scratch, Progress())
        assert part.commit == read_project(root, scratch, Progress(), allow_dirty=False).commit
        assert (draft / part.project).is_file()
        assert (draft / part.lock).is_file()
        return draft

    return build


def unpack(draft: Path, into: Path) -> Path:
    bootstrap.unpack_project(draft / "controller/project.tar", into)
    return into


def test_two_builds_of_a_commit_are_the_same_bytes(
    built: Callable[..., Path], checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = built("one")
    other = tmp_path / "elsewhere"
    git(tmp_path, "clone", "--quiet", str(checkout), str(other))
    (other / "site.yml").touch()
    (other / "python/src/rackserve/programs/bootstrap.sh").chmod(0o700)
    settings = tmp_path / "gitconfig"
    settings.write_text("[core]\n\tautocrlf = true\n[tar]\n\tumask = 0077\n[user]\n\tname = somebody else\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    assert scan(built("two", other)) == scan(one)


def test_a_checkout_that_a_bundle_made_builds_the_same_bytes(built: Callable[..., Path], tmp_path: Path) -> None:
    one = built("one")
    assert scan(built("two", unpack(one, tmp_path / "unpacked"))) == scan(one)


def test_the_part_holds_what_a_bare_machine_needs(built: Callable[..., Path]) -> None:
    names = {entry.path for entry in scan(built("one"))}
    assert names == {
        "controller/bootstrap.py",
        "controller/bootstrap.sh",
        "controller/locks/controller.txt",
        "controller/locks/uv.txt",
        "controller/packages",
        "controller/project.tar",
        "controller/wheels/controller-1-cp311-none-any.whl",
        "controller/wheels/uv-1-cp311-none-any.whl",
    }


def test_the_packages_are_named_for_the_shell(built: Callable[..., Path]) -> None:
    assert (built("one") / "controller/packages").read_text().split() == list(CONTROLLER_PACKAGES)


def test_changes_are_refused_by_name(checkout: Path, tmp_path: Path) -> None:
    (checkout / "site.yml").write_text("changed")
    with pytest.raises(InputError, match=r"not committed: site\.yml"):
        read_project(checkout, tmp_path, Progress(), allow_dirty=False)


class RecordedProgress(Progress):
    def __init__(self) -> None:
        self.steps: list[str] = []

    def say(self, step: str) -> None:
        self.steps.append(step)


def test_allowed_changes_and_new_files_are_left_out_and_reported(checkout: Path, tmp_path: Path) -> None:
    before = read_project(checkout, tmp_path, Progress(), allow_dirty=False)
    (checkout / "site.yml").write_text("changed")
    (checkout / "new.yml").write_text("new")
    progress = RecordedProgress()
    assert read_project(checkout, tmp_path, progress, allow_dirty=True) == before
    assert progress.steps == ["left out, as it is not committed: site.yml, new.yml"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "altered": lambda path: path.write_text("x"),
    "missing": lambda path: path.unlink(),
    "mode": lambda path: path.chmod(0o755),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_changed_checkout_of_a_bundle_is_refused(
    built: Callable[..., Path], tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    root = unpack(built("one"), tmp_path / "unpacked")
    damage(root / "site.yml")
    with pytest.raises(InputError, match=r"differs from its bundle's project: site\.yml"):
        read_project(root, tmp_path, Progress(), allow_dirty=True)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither \.git nor FILES"):
        read_project(tmp_path, tmp_path, Progress(), allow_dirty=False)


def test_a_spoilt_list_of_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "FILES").write_text("100644 abc site.yml\n")
    with pytest.raises(InputError, match="100644 abc"):
        read_project(tmp_path, tmp_path, Progress(), allow_dirty=False)


def test_git_status_is_read_with_renames() -> None:
    text = "R  new name\0old name\0 M changed\0?? untracked\0"
    assert parse_status(text) == (["new name", "changed"], ["untracked"])


def test_unpacking_keeps_bytes_programs_and_links(built: Callable[..., Path], tmp_path: Path) -> None:
    root = unpack(built("one"), tmp_path / "unpacked")
    assert (root / "linked.yml").readlink().name == "site.yml"
    assert (root / "python/src/rackserve/programs/bootstrap.sh").stat().st_mode & 0o777 == 0o755
    assert (root / "site.yml").stat().st_mode & 0o777 == 0o644


def test_every_file_of_this_project_can_be_carried(tmp_path: Path) -> None:
    if not any((project_root() / name).exists() for name in (".git", "FILES")):
        pytest.skip("neither a git checkout nor one that a bundle made")
    project = read_project(project_root(), tmp_path, Progress(), allow_dirty=True)
    with tarfile.open(fileobj=io.BytesIO(project_tar(project))) as tar:
        assert bootstrap.unsafe(tar.getmembers()) == []


def write_manifest(bundle: Path) -> None:
    files = [entry._asdict() for entry in scan(bundle) if entry.path != "manifest.json"]
    (bundle / "manifest.json").write_text(json.dumps({"files": files}))


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "altered": lambda folder: (folder / "project.tar").write_bytes(b"x"),
    "missing": lambda folder: (folder / "project.tar").unlink(),
    "planted": lambda folder: (folder / "project.tar2").touch(),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_what_the_manifest_does_not_say_is_refused(
    built: Callable[..., Path], tamper: Callable[[Path], object]
) -> None:
    bundle = built("one")
    write_manifest(bundle)
    bootstrap.check_files(bundle)
    tamper(bundle / "controller")
    with pytest.raises(bootstrap.CannotBootstrapError, match=r"controller/project\.tar"):
        bootstrap.check_files(bundle)


def test_another_commit_or_lock_or_python_is_another_release(built: Callable[..., Path]) -> None:
    folder = built("one") / "controller"
    first = bootstrap.release_id(folder, (3, 11))
    assert bootstrap.release_id(folder, (3, 12)) != first
    (folder / "locks/uv.txt").write_text("other")
    assert bootstrap.release_id(folder, (3, 11)) != first
