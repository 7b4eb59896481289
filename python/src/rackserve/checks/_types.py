"""The words that all checks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

PROMPT: Final = "What is the capital of France? Answer in one word."
MAX_TOKENS: Final = 16


@dataclass(frozen=True)
class CheckResult:
    """The verdict of one check on one host; the detail says what was seen, and for a failure what was expected."""

    name: str
    host: str
    ok: bool
    detail: str


class Check(Protocol):
    """One thing that is looked at."""

    def run(self) -> CheckResult:
        """Look, and return the verdict; never raise for what the check is there to find."""
        ...


@dataclass(frozen=True)
class EdgeTarget:
    """How a client sees one edge: its address, the name and CA that its certificate must fit, key, limits.

    `certificate_file` is the client's own certificate, PEM, where the edge asks for one; its `.key` lies beside it.
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
