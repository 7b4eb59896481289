"""`python -m rackserve`."""

from __future__ import annotations

from rackserve.cli import run

run()
