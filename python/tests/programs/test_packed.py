"""A program that is a package becomes one file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from rackserve._paths import program_file, zipapp_of
from rackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "greet").mkdir()
    (tmp_path / "greet/__init__.py").write_text("")
    (tmp_path / "greet/_word.py").write_text("WORD = 'hello'\n")
    (tmp_path / "greet/__main__.py").write_text(
        "from ._word import WORD\n\n\ndef main():\n    print(WORD)\n    return 3\n"
    )
    return tmp_path / "greet"


def test_it_runs_alone_by_any_name(package: Path, tmp_path: Path) -> None:
    (tmp_path / "one file").write_bytes(zipapp_of(package))
    done = subprocess.run([sys.executable, "-I", tmp_path / "one file"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "hello\n")


def test_equal_sources_give_equal_bytes(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = zipapp_of(package)
    os.utime(package / "_word.py", (0, 0))
    (package / "__pycache__").mkdir()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    assert zipapp_of(package) == before
    (package / "_word.py").write_text("WORD = 'bye'\n")
    assert zipapp_of(package) != before


def test_a_program_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    packed = program_file("verify_bundle.pyz")
    assert packed.read_bytes()[:22] == b"#!/usr/bin/env python3"
    assert packed.stat().st_mode & 0o777 == 0o755
    packed.write_bytes(b"damaged")
    assert program_file("verify_bundle.pyz").read_bytes() != b"damaged"
    assert [path.name for path in packed.parent.iterdir()] == ["verify_bundle.pyz"]
    assert program_file("host_metrics.py").name == "host_metrics.py"
    with pytest.raises(InputError, match=r"there is no program 'x'; there are .*verify_bundle\.pyz"):
        program_file("x")


def test_the_verifier_needs_nothing_but_python() -> None:
    argv = [sys.executable, "-I", "-S", str(program_file("verify_bundle.pyz")), "check", "/nowhere", "--signers", "x"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "refused: /nowhere: no bundle at /nowhere: manifest.json is missing\n",
    )
