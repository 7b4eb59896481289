"""Where rackserve keeps things on the controller (XDG base directories)."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """Return the checkout that holds site.yml: $RACKSERVE_PROJECT, else the one this package runs from."""
    override = os.environ.get("RACKSERVE_PROJECT")
    return Path(override).resolve() if override else Path(__file__).resolve().parents[3]


def state_dir() -> Path:
    """Return the folder of what must survive: bundles, labs, run records. Mode 0700."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = base / "rackserve"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def cache_dir() -> Path:
    """Return the folder of what can be made again: base trees, downloads."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "rackserve"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
