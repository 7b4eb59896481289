"""An installed environment is what its wheels recorded, file by file; a real one, made by uv."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rackserve.ansible.module_utils.rackserve_record import record_problems
from rackserve.ansible.modules import vllm_release
from rackserve.bundle._shim import MadeWheel

if TYPE_CHECKING:
    from collections.abc import Callable

UV = str(Path(sys.executable).with_name("uv"))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Give the site-packages of a new environment with one small package in it."""
    wheel = MadeWheel("engine", "1.0", "for a test", modules={"engine/__init__.py": "ANSWER = 42\n"})
    (tmp_path / wheel.file_name).write_bytes(wheel.to_bytes())
    quiet = ["--offline", "--quiet", f"--cache-dir={tmp_path}/cache"]
    subprocess.run([UV, "venv", *quiet, f"--python={sys.executable}", tmp_path / "env"], check=True)
    python = tmp_path / "env/bin/python"
    install = [UV, "pip", "install", *quiet, f"--python={python}", "--no-index", f"--find-links={tmp_path}"]
    subprocess.run([*install, "--compile-bytecode", "engine"], check=True)
    return next((tmp_path / "env/lib").glob("python3*/site-packages"))


def test_a_sound_environment_has_no_problems(site: Path) -> None:
    assert list(site.glob("engine/__pycache__/*.pyc"))
    assert record_problems(str(site)) == []


def move_behind_a_link(path: Path) -> None:
    path.rename(path.parents[2] / "elsewhere.py")
    path.symlink_to(path.parents[2] / "elsewhere.py")


def edit_record(site: Path, old: str, new: str) -> None:
    record = site / "engine-1.0.dist-info/RECORD"
    assert old in record.read_text()
    record.write_text(re.sub(f"{old}[^,]*", new, record.read_text(), count=1))


TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (lambda site: (site / "engine/__init__.py").write_text("ANSWER = 43\n"), "was altered"),
    "longer": (lambda site: (site / "engine/__init__.py").write_text("ANSWER = 42 \n"), "its RECORD says 12"),
    "deleted": (lambda site: (site / "engine/__init__.py").unlink(), "is missing"),
    "behind a link": (lambda site: move_behind_a_link(site / "engine/__init__.py"), "is a link"),
    "linked folder": (lambda site: (site / "more").symlink_to(site / "engine"), "named by no RECORD"),
    "planted module": (lambda site: (site / "engine/more.py").write_text(""), "named by no RECORD"),
    "planted .pth": (lambda site: (site / "evil.pth").write_text("import os\n"), "named by no RECORD"),
    "planted .pth of uv's name": (lambda site: (site / "_virtualenv.pth").write_text("import os\n"), "by no RECORD"),
    "planted beside bytecode": (lambda site: (site / "engine/__pycache__/more.py").write_text(""), "by no RECORD"),
    "no digest": (lambda site: edit_record(site, "engine/__init__.py,sha256=", "engine/__init__.py,"), "gives nothing"),
    "weak digest": (lambda site: edit_record(site, "engine/__init__.py,sha256", "engine/__init__.py,md5"), "gives md5"),
    "planted metadata": (lambda site: (site / "engine-1.0.dist-info/x.txt").write_text(""), "named by no RECORD"),
}


@pytest.mark.parametrize(("tamper", "reason"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_what_differs_is_named(site: Path, tamper: Callable[[Path], object], reason: str) -> None:
    tamper(site)
    (problem,) = record_problems(str(site))
    assert reason in problem


def misrecorded(folder: Path, name: str, text: str, installed: Path) -> None:
    """Make a wheel that has `engine/__init__.py` with some text, beside an environment whose RECORD says otherwise."""
    wheel = MadeWheel(name, "1.0", "for a test", modules={"engine/__init__.py": text})
    folder.mkdir(exist_ok=True)
    (folder / wheel.file_name).write_bytes(wheel.to_bytes())
    installed.write_text("ANSWER = 44\n")


def test_a_file_of_a_wheel_that_is_wrong_about_itself_is_right(site: Path, tmp_path: Path) -> None:
    misrecorded(tmp_path / "wheels", "engine", "ANSWER = 44\n", site / "engine/__init__.py")
    assert record_problems(str(site), str(tmp_path / "wheels")) == []
    vllm_release.compare_with_records(str(site.parents[2]), str(tmp_path / "wheels"))


def test_a_file_that_two_wheels_bring_may_be_either_ones(site: Path, tmp_path: Path) -> None:
    misrecorded(tmp_path / "wheels", "another", "ANSWER = 45\n", site / "engine/__init__.py")
    misrecorded(tmp_path / "wheels", "engine", "ANSWER = 44\n", site / "engine/__init__.py")
    assert record_problems(str(site), str(tmp_path / "wheels")) == []


@pytest.mark.parametrize("text", ["ANSWER = 43\n", "ANSWER = 4\n"], ids=["flipped", "shorter"])
def test_a_file_that_no_wheel_has_is_altered(site: Path, tmp_path: Path, text: str) -> None:
    misrecorded(tmp_path / "wheels", "engine", text, site / "engine/__init__.py")
    (problem,) = record_problems(str(site), str(tmp_path / "wheels"))
    assert "was altered" in problem


def test_a_link_to_the_wheel_s_own_bytes_is_still_a_link(site: Path, tmp_path: Path) -> None:
    misrecorded(tmp_path / "wheels", "engine", "ANSWER = 44\n", site / "engine/__init__.py")
    move_behind_a_link(site / "engine/__init__.py")
    (problem,) = record_problems(str(site), str(tmp_path / "wheels"))
    assert "is a link" in problem


def test_a_release_that_is_as_recorded_is_accepted(site: Path) -> None:
    vllm_release.compare_with_records(str(site.parents[2]))


def test_a_release_that_differs_is_refused_by_its_first_files(site: Path) -> None:
    for number in range(7):
        (site / f"more{number}.py").write_text("")
    with pytest.raises(vllm_release.ReleaseError, match=r"more0\.py is named by no RECORD.*, and 2 more"):
        vllm_release.compare_with_records(str(site.parents[2]))


def test_a_release_without_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(vllm_release.ReleaseError, match="nothing can be compared"):
        vllm_release.compare_with_records(str(tmp_path))
