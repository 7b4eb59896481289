"""Where rackserve keeps things on the controller (XDG base directories)."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Final

from rackserve.errors import InputError

_ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first day that a zip file can name
_UNIX: Final = 3


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
    """Return a program of `rackserve.programs`: a file, or `NAME.pyz` of a package NAME, packed as one.

    Raises:
        InputError: there is none of that name.
    """
    folder = Path(__file__).parent / "programs"
    found = {path.name: path for path in folder.iterdir() if path.is_file() and path.name != "__init__.py"}
    packages = {f"{path.parent.name}.pyz": path.parent for path in folder.glob("*/__main__.py")}
    if name in packages:
        return _packed(name, zipapp_of(packages[name]))
    if name not in found:
        raise InputError(f"there is no program {name!r}; there are {', '.join(sorted({*found, *packages}))}")
    return found[name]


def _packed(name: str, data: bytes) -> Path:
    path = cache_dir() / "programs" / hashlib.sha256(data).hexdigest()[:16] / name
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{name}.{os.getpid()}")
        draft.write_bytes(data)
        draft.chmod(0o755)
        draft.replace(path)
    return path


def zipapp_of(package: Path) -> bytes:
    """Return a package as one file that Python runs (PEP 441); equal sources give equal bytes.

    Args:
        package: its folder; its `__main__.py` has a function `main`, and its modules import each other relatively.
    """
    sources = {f"{package.name}/{path.name}": path.read_bytes() for path in sorted(package.glob("*.py"))}
    start = f"import sys\n\nfrom {package.name}.__main__ import main\n\nsys.exit(main())\n"
    out = io.BytesIO(b"#!/usr/bin/env python3\n")
    out.seek(0, io.SEEK_END)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name, data in {"__main__.py": start.encode(), **sources}.items():
            entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
            entry.create_system, entry.external_attr = _UNIX, 0o100644 << 16
            archive.writestr(entry, data)
    return out.getvalue()
