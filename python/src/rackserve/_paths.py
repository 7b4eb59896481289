"""Where rackserve keeps things on the controller (XDG base directories)."""

from __future__ import annotations

import os
from pathlib import Path

from rackserve.errors import InputError


def project_root() -> Path:
    """Return the checkout that holds site.yml: $RACKSERVE_PROJECT, else the one this package runs from."""
    override = os.environ.get("RACKSERVE_PROJECT")
    return Path(override).resolve() if override else Path(__file__).resolve().parents[3]


def state_dir() -> Path:
    """Return the folder of persistent state: bundles, labs, run records. Mode 0700."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = base / "rackserve"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def cache_dir() -> Path:
    """Return the cache folder: base trees, downloads."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "rackserve"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def program_file(name: str) -> Path:
    """Return a program of `rackserve.programs`.

    Raises:
        InputError: there is none of that name.
    """
    folder = Path(__file__).parent / "programs"
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "__init__.py")
    if name not in names:
        raise InputError(f"there is no program {name!r}; there are {', '.join(names)}")
    return folder / name
