"""How a build reports its progress."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Progress:
    """Callbacks for each step, and for folders while files arrive. These do nothing."""

    def say(self, step: str) -> None:
        """Report a step before it begins."""

    @contextmanager
    def filling(self, folder: Path, *, size: int = 0, files: int = 0) -> Iterator[None]:
        """Report the files that arrive in a folder while the block runs.

        Args:
            folder: where they arrive; files that are already in it are not counted.
            size: bytes that will arrive, 0 when unknown.
            files: number of files that will arrive, 0 when unknown.
        """
        del folder, size, files
        yield
