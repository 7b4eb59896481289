"""What wheels said they would install, compared with what is there. Standard library only, Python 3.9 and newer."""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

_CHUNK = 1 << 20
_FIELDS = 3
# What an installer writes itself, and no wheel vouches for.
_INSTALLERS = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json")
_SITE = ("_virtualenv.py", "_virtualenv.pth")  # uv's own, in every environment that it makes


class Recorded(NamedTuple):
    """One line of a RECORD: path of the file, digest as RECORD writes it, size in bytes; the last two may be empty."""

    path: str
    digest: str
    size: str


def read_records(site_packages: str) -> list[Recorded]:
    """Return every file that the RECORDs of an environment name, bytecode apart: the installer compiles it anew.

    The format is the one of the Python packaging guide, "Recording installed projects". numpy 2.3's wheel brings
    bytecode of its own, which an installation with `--compile-bytecode` replaces.
    """
    found = []
    for record in sorted(glob.glob(os.path.join(site_packages, "*.dist-info", "RECORD"))):
        with open(record, encoding="utf-8", newline="") as source:
            rows = [row for row in csv.reader(source) if len(row) == _FIELDS and "__pycache__" not in row[0]]
        found += [Recorded(os.path.normpath(os.path.join(site_packages, row[0])), row[1], row[2]) for row in rows]
    return found


def file_problem(recorded: Recorded) -> str | None:
    """Return what is wrong with one recorded file, or None."""
    try:
        if recorded.size and os.path.getsize(recorded.path) != int(recorded.size):
            return f"{recorded.path} has {os.path.getsize(recorded.path)} bytes, its RECORD says {recorded.size}"
        algorithm, _, wanted = recorded.digest.partition("=")
        if not wanted:
            return None if os.path.lexists(recorded.path) else f"{recorded.path} is missing"
        digest = hashlib.new(algorithm)
        with open(recorded.path, "rb") as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
    except OSError as failed:
        return f"{recorded.path} cannot be read: {failed.strerror}"
    found = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    return None if found == wanted else f"{recorded.path} was altered: its sha256 is not its RECORD's"


def record_problems(site_packages: str) -> list[str]:
    """Return a sentence for every file that is missing, altered, or that no RECORD names; bytecode is left out."""
    recorded = read_records(site_packages)
    named = {entry.path for entry in recorded}
    found = []
    for folder, folders, names in os.walk(site_packages):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = os.path.join(folder, name)
            own = name in _INSTALLERS if folder.endswith(".dist-info") else folder == site_packages and name in _SITE
            if path not in named and not own:
                found.append(f"{path} is named by no RECORD")
    with ThreadPoolExecutor() as pool:
        found += [problem for problem in pool.map(file_problem, recorded) if problem]
    return sorted(found)
