"""What the edge costs, measured; the figures are printed and not judged, since they are of the machine too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Compare = Callable[..., None]

TOOL = Path(__file__).parents[3] / "python/tools/proxy_cost.py"


@pytest.fixture
def compare(network: str, authority: Path, tmp_path: Path) -> Compare:
    """Return a function that measures a model at a port of gpu2, and through the edge."""
    key = tmp_path / "key"
    key.write_text("rsk-many", encoding="utf-8")

    def run(model: str, port: int, *options: str) -> None:
        direct = ("--direct", f"http://{network}.12:{port}", "--model", model)
        edge = ("--edge", f"https://{network}.21", "--server-name", "rackserve.lab", "--ca-file", str(authority))
        argv = [sys.executable, str(TOOL), *direct, *edge, "--key-file", str(key), *options]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=500)
        print(done.stdout, done.stderr)
        assert done.returncode == 0, "every request was answered"

    return run


@pytest.mark.usefixtures("paced")
def test_a_paced_stand_in(compare: Compare) -> None:
    compare("paced", 7001)


@pytest.mark.usefixtures("real")
def test_a_real_engine(compare: Compare) -> None:
    compare("alone", 8000, "--rounds", "2", "--requests", "1", "--alone", "4", "--output-tokens", "16")
