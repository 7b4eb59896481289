"""The last word of `.ci/test`: one test for each part that it ran, so that a failed part fails the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def verdicts() -> list[tuple[str, int, int]]:
    """Return name, exit code and seconds of each part; empty when the unit tests run alone."""
    folder = os.environ.get("RACKSERVE_TEST_RESULTS")
    if not folder:
        return []
    rows = (line.split() for line in (Path(folder) / "verdicts").read_text().splitlines())
    return [(name, int(code), int(seconds)) for name, code, seconds in rows]


@pytest.mark.parametrize(("name", "code", "seconds"), [pytest.param(*row, id=row[0]) for row in verdicts()])
def test_the_part_passed(name: str, code: int, seconds: int) -> None:
    if code:
        log = Path(os.environ["RACKSERVE_TEST_RESULTS"]) / f"{name}.log"
        end = "\n".join(log.read_text(errors="replace").splitlines()[-60:])
        pytest.fail(f"{name} ended with {code} after {seconds} s; .test-results/{name}.log ends:\n{end}", pytrace=False)
