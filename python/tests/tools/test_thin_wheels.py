"""python/tools/thin_wheels.py: a wheel put together again is the very wheel, or nothing."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/thin_wheels.py"
WHEEL = "engine-1.0-py3-none-any.whl"
MODULE = "ANSWER = 42\n" * 100


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """Give a folder with one wheel, and `site` beside it with that wheel installed."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("engine/__init__.py", MODULE)
        wheel.writestr(zipfile.ZipInfo("engine/stored.txt"), "as it is")
        wheel.writestr("engine-1.0.data/scripts/engine", "#!python\n")
        wheel.writestr("engine-1.0.dist-info/RECORD", "as the wheel has it\n")
    with zipfile.ZipFile(folder / WHEEL) as wheel:
        wheel.extractall(tmp_path / "site")
    (tmp_path / "site/engine-1.0.dist-info/RECORD").write_text("as the installer wrote it\n")
    return folder


def tool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *words], capture_output=True, text=True, check=False)


def put_together(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    words = ("whole", tmp_path / "thin", tmp_path / "again", "--site", tmp_path / "site")
    return tool(*words, "--report", tmp_path / "report.json")


def test_the_same_wheel_again(wheels: Path, tmp_path: Path) -> None:
    assert tool("thin", wheels, tmp_path / "thin").returncode == 0
    done = put_together(tmp_path)
    assert (done.returncode, done.stdout) == (0, "1 of 1 wheels put together\n"), done.stderr
    assert (tmp_path / "again" / WHEEL).read_bytes() == (wheels / WHEEL).read_bytes()


@pytest.mark.parametrize("text", [None, "ANSWER = 43\n" * 100, "ANSWER = 4\n"], ids=["missing", "altered", "another"])
def test_no_wheel_of_other_files_but_what_they_lack_can_be_carried(
    wheels: Path, tmp_path: Path, text: str | None
) -> None:
    module = tmp_path / "site/engine/__init__.py"
    module.unlink() if text is None else module.write_text(text)
    tool("thin", wheels, tmp_path / "thin")
    assert put_together(tmp_path).returncode == 1
    assert not (tmp_path / "again" / WHEEL).exists()
    tool("thin", wheels, tmp_path / "thin", "--carry", tmp_path / "report.json")
    assert put_together(tmp_path).returncode == 0


def test_only_the_named_packages(wheels: Path, tmp_path: Path) -> None:
    tool("thin", wheels, tmp_path / "thin", "--only", "Another.One")
    assert list((tmp_path / "thin").iterdir()) == []
