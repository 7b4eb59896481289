"""Types and constants that all checks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

PROMPT: Final = "What is the capital of France? Answer in one word."
MAX_TOKENS: Final = 16


@dataclass(frozen=True)
class CheckResult:
    """The result of one check on one host; the detail has the value found and, for a failure, the one expected."""

    name: str
    host: str
    ok: bool
    detail: str


class Check(Protocol):
    """One check."""

    def run(self) -> CheckResult:
        """Run the check and return its result; a failed check does not raise."""
        ...


@dataclass(frozen=True)
class EdgeTarget:
    """One edge from a client's side: its address, the name and CA of its certificate, key, limits.

    `certificate_file` is the client's own certificate, PEM, where the edge requires one; its `.key` is beside it.
    """

    host: str
    address: str
    port: int
    server_name: str
    ca_file: Path | None
    key_file: Path | None
    model: str
    expect: str
    rate: int
    burst: int
    certificate_file: Path | None = None
