"""Shows a bundle's build on stderr: each step, and of every download the bytes so far and the time left."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from rackserve.bundle import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SAMPLE_S: Final = 1.0
_LINE_S: Final = 10.0  # between two lines where no terminal can rewrite one
_MINUTE: Final = 60


class Level(NamedTuple):
    """How full a folder is: bytes, and files that are there to the end."""

    size: int
    files: int


def level_of(folder: Path) -> Level:
    """Measure a folder; what is renamed or removed meanwhile is not counted."""
    size = files = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                size += path.stat().st_size
                files += path.suffix in (".deb", ".whl") and "partial" not in path.parts
        except FileNotFoundError:
            continue
    return Level(size, files)


def progress_line(got: Level, wanted: Level, seconds: float) -> str:
    """Return "12 of 40 files, 310 of 1200 MB, 31 MB/s, 29 s left"; unknown parts are left out.

    Args:
        got: what arrived.
        wanted: what will have arrived in the end; zeros where it is not known.
        seconds: since the first byte was awaited.
    """
    words = []
    if got.files or wanted.files:
        words.append(f"{got.files}{f' of {wanted.files}' if wanted.files else ''} files")
    words.append(f"{got.size / 1e6:.0f}{f' of {wanted.size / 1e6:.0f}' if wanted.size else ''} MB")
    rate = got.size / seconds if seconds > 0 else 0
    if rate:
        words.append(f"{rate / 1e6:.1f} MB/s")
    if rate and wanted.size >= got.size:
        left = (wanted.size - got.size) / rate
        words.append(f"{left:.0f} s left" if left < 2 * _MINUTE else f"{left / _MINUTE:.0f} min left")
    return ", ".join(words)


class BuildProgress(Progress):
    """Writes steps and download progress to stderr; on a terminal the progress line is rewritten."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def say(self, step: str) -> None:
        """Show a step."""
        print(f"[{time.monotonic() - self._started:5.0f} s] {step}", file=sys.stderr, flush=True)

    @contextmanager
    def filling(self, folder: Path, *, size: int = 0, files: int = 0) -> Iterator[None]:
        """Show how a folder fills."""
        before, ended = level_of(folder), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(folder, before, Level(size, files), ended))
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _watch(self, folder: Path, before: Level, wanted: Level, ended: threading.Event) -> None:
        terminal, started = sys.stderr.isatty(), time.monotonic()
        while not ended.wait(_SAMPLE_S if terminal else _LINE_S):
            now = level_of(folder)
            got = Level(max(0, now.size - before.size), max(0, now.files - before.files))
            if not got.size:
                continue
            line = progress_line(got, wanted, time.monotonic() - started)
            if terminal:
                print(f"\r\033[K          {line}", end="", file=sys.stderr, flush=True)
            else:
                print(f"          {line}", file=sys.stderr, flush=True)
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
