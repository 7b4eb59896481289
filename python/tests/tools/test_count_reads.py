"""python/tools/count_reads.py: each opening for reading is counted once, in forked processes too."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

READER = """
import os, pathlib, subprocess, sys
sys.path.insert(0, "lib")
from rackserve.bundle import read

read("bundles/current/manifest.json")
if os.fork() == 0:
    read("bundles/current/manifest.json")
    os._exit(0)
os.wait()
subprocess.run([sys.executable, "-c", "open('bundles/current/manifest.json', 'rb')"], check=True)
open("bundles/current/manifest.json", "w")
pathlib.Path("bundles/current/other.json").read_bytes()
pathlib.Path("manifest.json").read_bytes()
sys.exit(3)
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "count_reads.py"
    spec = importlib.util.spec_from_file_location("count_reads", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A program that opens the file three times for reading, and other files."""
    files = {
        "reader.py": READER,
        "lib/rackserve/__init__.py": "",
        "lib/rackserve/bundle.py": "def read(path):\n    with open(path) as source:\n        return source.read()\n",
        "bundles/current/manifest.json": "{}",
        "bundles/current/other.json": "{}",
        "manifest.json": "{}",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return ["--below", "bundles", "--", sys.executable, "reader.py"]


def test_reads_are_counted_by_process_and_by_who_asked(
    tool: ModuleType, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--json", *command]) == 3
    counted = json.loads(capsys.readouterr().out)
    rows = {(row["process"], row["asked_by"]): row["reads"] for row in counted["rows"]}
    assert rows == {("reader.py", "read"): 1, ("reader.py (forked)", "read"): 1, ("-c", ""): 1}
    assert counted["reads"] == 3


def test_a_command_that_reads_nothing_has_a_count_of_zero(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--below", str(tmp_path), "--", sys.executable, "-c", "pass"]) == 0
    assert capsys.readouterr().out == "     0  in all\n"
