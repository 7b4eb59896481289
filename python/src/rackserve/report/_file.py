"""Writes a page whole or not at all, and over nothing but an earlier page."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from rackserve.errors import InputError

MARK: Final = '<meta name="generator" content="rackserve report">'
_HEAD_BYTES: Final = 2000


def refuse_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, or that is something else than an earlier page.

    Raises:
        InputError: saying which.
    """
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: its folder does not exist; make it first")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; name a file, such as {path / 'report.html'}")
    if overwrite or not path.exists():
        return
    try:
        with path.open("rb") as source:
            head = source.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {path}, which exists: {error.strerror}") from error
    if MARK.encode() not in head:
        raise InputError(f"{path} exists and is not a report; name another file, or give --overwrite")


def write_page(path: Path, text: str) -> None:
    """Write a page, mode 0600, since it names hosts; a reader sees the old one or the new one.

    Raises:
        InputError: when it cannot be written.
    """
    try:
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as target:
                target.write(text)
                target.flush()
                os.fsync(target.fileno())
            Path(draft).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(draft).unlink()
            raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
