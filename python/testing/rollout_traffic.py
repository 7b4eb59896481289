"""Traffic through the lab's edge while something is done to the fleet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from testing.fleet import SERVER_NAME
from testing.lab import FOLDER, PREFIX, ROOT
from testing.rollout_site import ADAPTERS
from testing.traffic import Record, Summary, read_records, summarise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENTS: Final = int(os.environ.get("ROLLOUT_CLIENTS", "6"))
REQUESTS: Final = int(os.environ.get("ROLLOUT_REQUESTS", "1000"))
_ENOUGH_WITHIN_S: Final = 900


@dataclass
class Traffic:
    """Running clients, and the file of what they note."""

    path: Path
    program: subprocess.Popen[str]

    def count(self) -> int:
        """How many requests have ended."""
        return self.path.read_bytes().count(b"\n") if self.path.exists() else 0

    def wait(self, more: int) -> None:
        """Wait until so many more have ended."""
        wanted, end = self.count() + more, time.monotonic() + _ENOUGH_WITHIN_S
        while self.count() < wanted:
            assert self.program.poll() is None, "the clients run"
            assert time.monotonic() < end, f"{self.count()} of {wanted} requests"
            time.sleep(0.5)

    def enough(self, requests: int = REQUESTS) -> None:
        """Wait until so many have ended since the start."""
        self.wait(max(0, requests - self.count()))

    def end(self) -> Summary:
        """End the clients with their running requests, and sum up."""
        self.program.send_signal(signal.SIGTERM)
        self.program.communicate(timeout=300)
        return summarise(self.records)

    @property
    def records(self) -> list[Record]:
        """What they have noted."""
        return read_records(self.path)


@contextmanager
def traffic(folder: Path, name: str, *, most_tokens: int = 256) -> Iterator[Traffic]:
    """Run clients from this machine; they have had some answers before the block begins.

    Args:
        folder: gets `NAME.jsonl`, which python/tools/rollout_picture.py draws.
        name: what is done meanwhile.
        most_tokens: longest answer; a low one gives many requests in a short time.
    """
    path = folder / f"{name.replace(' ', '-')}.jsonl"
    path.unlink(missing_ok=True)
    pki = FOLDER / "pki"
    argv = [sys.executable, "-m", "testing.traffic", "--url", f"https://{PREFIX}.21", "--server-name", SERVER_NAME]
    argv += ["--ca", str(pki / "ca.crt"), "--key-file", str(pki / "client.key"), "--model", "smollm2"]
    argv += [word for adapter in ADAPTERS for word in ("--adapter", adapter)]
    argv += ["--clients", str(CLIENTS), "--output", str(path), "--most-tokens", str(most_tokens)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as program:
        running = Traffic(path, program)
        try:
            running.wait(20)
            yield running
        finally:
            if program.poll() is None:
                running.end()
