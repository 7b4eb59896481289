"""The header of a safetensors file: names, types and shapes of its tensors."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_HEADER_LIMIT: Final = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class Tensor:
    """One entry of a safetensors header."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def read_header(file: Path) -> list[Tensor]:
    """Return the tensors of a safetensors file; only its first bytes are read.

    Raises:
        InputError: when the header cannot be read.
    """
    try:
        entries, _ = _entries(file)
        return [Tensor(name, entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()]
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise InputError(f"{file}: not a whole safetensors file ({wrong}); fetch it again") from wrong


def fault_of(file: Path) -> str | None:
    """Return how a safetensors file is broken; None when its header covers it to its last byte, as the format asks."""
    try:
        entries, data = _entries(file)
        wanted = data + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (OSError, struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as wrong:
        return f"its header cannot be read: {wrong}"
    has = file.stat().st_size
    return None if has == wanted else f"it has {has:,} bytes, its header describes {wanted:,}"


def _entries(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the entries of the tensors, and where their data begins."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        entries: dict[str, dict[str, Any]] = json.loads(stream.read(min(length, _HEADER_LIMIT)))
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}, 8 + length
