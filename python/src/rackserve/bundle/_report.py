"""What a build tells while it runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Report:
    """Hears of each step, and of folders while they fill. This one keeps silent."""

    def say(self, step: str) -> None:
        """Hear of a step before it begins."""

    @contextmanager
    def filling(self, folder: Path, *, size: int = 0, files: int = 0) -> Iterator[None]:
        """Hear that files arrive in a folder while the block runs.

        Args:
            folder: where they arrive; what is in it before is not counted.
            size: bytes that will arrive, 0 when nobody knows.
            files: how many will arrive, 0 when nobody knows.
        """
        del folder, size, files
        yield
