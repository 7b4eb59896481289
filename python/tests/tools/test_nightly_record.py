"""The record of `make nightly`: one row a scenario, of its last run; and every scenario is run by something."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import nightly_record
from nightly_record import HEAD, read_verdicts, record
from testing.lab import ROOT

if TYPE_CHECKING:
    from pathlib import Path

OLD = HEAD + "| alerts | ok | 900 | 2026-01-01 | aaaaaaa |\n| keepalived | ok | 600 | 2026-01-01 | aaaaaaa |\n"
VERDICTS = "bundle_build 0 9\nscenario_keepalived 1 77\nscenario_edge_faults 0 5\n"
LANE = re.compile(r'^  "(?:molecule\d?) +\S+ +\S+ +([\w ]+)"$', re.MULTILINE)


def test_rows_of_a_run_replace_their_own_and_leave_the_others() -> None:
    rows = record(OLD, read_verdicts(VERDICTS), "2026-02-02", "bbbbbbb").removeprefix(HEAD).splitlines()
    assert rows == [
        "| alerts | ok | 900 | 2026-01-01 | aaaaaaa |",
        "| edge_faults | ok | 5 | 2026-02-02 | bbbbbbb |",
        "| keepalived | FAILED | 77 | 2026-02-02 | bbbbbbb |",
    ]


def test_a_record_is_read_as_it_was_written() -> None:
    assert record(OLD, [], "2026-02-02", "bbbbbbb") == OLD


@pytest.mark.parametrize(("verdicts", "code"), [(VERDICTS, 1), ("bundle_build 1 9\n", 1), ("scenario_alerts 0 9\n", 0)])
def test_a_failed_part_fails_the_run_after_it_was_written(tmp_path: Path, verdicts: str, code: int) -> None:
    (tmp_path / "verdicts").write_text(verdicts)
    table = tmp_path / "measurements/nightly.md"
    assert nightly_record.main([str(tmp_path / "verdicts"), "--record", str(table)]) == code
    assert len(table.read_text().splitlines()) - len(HEAD.splitlines()) == verdicts.count("scenario_")


def test_a_commit_with_changes_is_marked() -> None:
    assert re.fullmatch(r"[0-9a-f]{7,}\+?", nightly_record.commit_of(ROOT))


def scenarios_of(script: str) -> list[str]:
    return [name for names in LANE.findall((ROOT / ".ci" / script).read_text()) for name in names.split()]


def test_every_scenario_is_run_by_ci_or_by_night() -> None:
    folders = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")} - {"default"}
    assert sorted(scenarios_of("test") + scenarios_of("nightly")) == sorted(folders)


def test_the_record_has_a_row_for_every_scenario_of_the_night() -> None:
    rows = nightly_record.RECORD.read_text(encoding="utf-8").removeprefix(HEAD).splitlines()
    assert [row.split("|")[1].strip() for row in rows] == sorted(scenarios_of("nightly"))
    assert nightly_record.RECORD.read_text(encoding="utf-8").startswith(HEAD)


def test_labs_and_networks_of_lanes_belong_together() -> None:
    for script in ("test", "nightly"):
        pairs = re.findall(r'^  "(molecule\d?) +(\S+) ', (ROOT / ".ci" / script).read_text(), re.MULTILINE)
        assert {network for _, network in pairs} == {f"10.89.{lab.removeprefix('molecule') or 1}" for lab, _ in pairs}
