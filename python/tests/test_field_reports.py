"""docs/measurements/field-reports.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parents[1] / "docs/measurements/field-reports.md").read_text(encoding="utf-8")
LINES = [line for line in PAGE.splitlines() if line.startswith("| ") and "before" not in line]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[2:40])
def test_a_row_names_tests_that_exist(line: str) -> None:
    cell = line.rstrip("| ").rpartition("|")[2]
    if "molecule" in cell:
        scenario, name = re.findall(r"`([^`]+)`", cell)
        paths = (TESTS.parents[1] / "molecule" / scenario / "tests").glob("test_*.py")
        assert any(f"def {name}(" in path.read_text(encoding="utf-8") for path in paths)
        return
    named = re.findall(r"`([^`]+)`", cell)
    assert named
    file = ""
    for one in named:
        path, _, name = one.partition("::")
        file = path or file
        assert (f"def {name}(" if name else "def test_") in (TESTS / file).read_text(encoding="utf-8"), one
