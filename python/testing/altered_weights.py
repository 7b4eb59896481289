"""Further revisions of a model whose files lie here: the same files, with other numbers in them."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS: Final = "model.safetensors"


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's bytes lie in a file of safetensors."""

    name: str
    dtype: str
    start: int
    end: int


def tensors(path: Path) -> list[Tensor]:
    """Read the head of a file of safetensors."""
    with path.open("rb") as source:
        (length,) = struct.unpack("<Q", source.read(8))
        head: dict[str, Any] = json.loads(source.read(length))
    return [
        Tensor(name, of["dtype"], 8 + length + of["data_offsets"][0], 8 + length + of["data_offsets"][1])
        for name, of in head.items()
        if name != "__metadata__"
    ]


def nudged(data: bytes) -> bytes:
    """Return bfloat16 numbers with the last bit of each turned: other weights, of the same worth."""
    return bytes(byte ^ (1 - number % 2) for number, byte in enumerate(data))


def damaged(data: bytes) -> bytes:
    """Return bfloat16 numbers with the other sign."""
    return bytes(byte ^ (0x80 * (number % 2)) for number, byte in enumerate(data))


def make_revision(original: Path, parent: Path, tensor: str, change: Callable[[bytes], bytes]) -> Path:
    """Copy a snapshot, change one of its tensors, and name the folder by what came of it.

    Args:
        original: folder of the snapshot.
        parent: where the copy goes.
        tensor: name of the tensor, of bfloat16.
        change: of its bytes.

    Returns:
        The copy's folder; its name is the revision, 40 hex digits.
    """
    found = next(each for each in tensors(original / WEIGHTS) if each.name == tensor)
    if found.dtype != "BF16":
        raise ValueError(f"{tensor} is of {found.dtype}, not BF16")
    scratch = parent / "new-revision"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(original, scratch)
    with (scratch / WEIGHTS).open("r+b") as target:
        target.seek(found.start)
        data = change(target.read(found.end - found.start))
        target.seek(found.start)
        target.write(data)
    with (scratch / WEIGHTS).open("rb") as source:
        revision = hashlib.file_digest(source, "sha1").hexdigest()
    shutil.rmtree(parent / revision, ignore_errors=True)
    return scratch.rename(parent / revision)


def folder_source(folder: Path) -> dict[str, Any]:
    """Return a recipe's `source` of a folder: every file with its digest."""
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {"kind": "folder", "path": str(folder), "files": files}
