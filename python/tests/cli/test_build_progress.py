"""What a build shows while files arrive."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from rackserve.cli import _build_progress
from rackserve.cli._build_progress import BuildProgress, Level, level_of, progress_line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("got", "wanted", "seconds", "line"),
    [
        (Level(310_000_000, 12), Level(1_200_000_000, 40), 10, "12 of 40 files, 310 of 1200 MB, 31.0 MB/s, 29 s left"),
        (Level(10_000_000, 1), Level(1_210_000_000, 40), 10, "1 of 40 files, 10 of 1210 MB, 1.0 MB/s, 20 min left"),
        (Level(310_000_000, 12), Level(0, 40), 10, "12 of 40 files, 310 MB, 31.0 MB/s"),
        (Level(0, 0), Level(1_000_000, 2), 10, "0 of 2 files, 0 of 1 MB"),
        (Level(5_000_000, 0), Level(0, 0), 1, "5 MB, 5.0 MB/s"),
    ],
)
def test_a_line_says_what_is_known(got: Level, wanted: Level, seconds: float, line: str) -> None:
    assert progress_line(got, wanted, seconds) == line


def test_a_file_counts_once_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    for name in ("a.deb", "partial/b.deb", "c.whl", "lock"):
        (tmp_path / name).write_bytes(b"1234")
    assert level_of(tmp_path) == Level(size=16, files=2)


def test_a_build_shows_how_far_a_download_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_build_progress, "_LINE_S", 0.01)
    (tmp_path / "before.whl").write_bytes(bytes(9_000_000))
    with BuildProgress().filling(tmp_path, size=4_000_000, files=2):
        (tmp_path / "first.whl").write_bytes(bytes(2_000_000))
        limit = time.monotonic() + 5
        while "1 of 2 files, 2 of 4 MB" not in (shown := capsys.readouterr().err) and time.monotonic() < limit:
            time.sleep(0.02)
    assert "1 of 2 files, 2 of 4 MB" in shown
    assert "s left" in shown
