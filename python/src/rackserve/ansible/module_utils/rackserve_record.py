"""Compares installed files with the RECORDs of their wheels. Standard library only, Python 3.9 and newer."""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

_CHUNK = 1 << 20
_FIELDS = 3
# What an installer writes itself, and no wheel vouches for. uv 0.13 puts `_virtualenv.pth` into environments of Python
# 3.9 and older only; it is not here, as whatever a .pth of that name said would run at every start.
_INSTALLERS = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json")
# The digests that the specification of RECORD allows: sha256 or better, of those that any Python computes.
_DIGESTS = ("sha256", "sha384", "sha512")


class Recorded(NamedTuple):
    """One line of a RECORD: path of the file, digest as RECORD writes it, size in bytes; the last two may be empty."""

    path: str
    digest: str
    size: str


def read_records(site_packages: str) -> list[Recorded]:
    """Return every file that the RECORDs of an environment name, bytecode and the RECORDs themselves apart.

    The format is the one of the Python packaging guide, "Recording installed projects". The installer compiles bytecode
    anew: numpy 2.3's wheel brings its own, which an installation with `--compile-bytecode` replaces.
    """
    found = []
    for record in sorted(glob.glob(os.path.join(site_packages, "*.dist-info", "RECORD"))):
        with open(record, encoding="utf-8", newline="") as source:
            rows = [row for row in csv.reader(source) if len(row) == _FIELDS and not is_bytecode(row[0])]
        files = [Recorded(os.path.normpath(os.path.join(site_packages, row[0])), row[1], row[2]) for row in rows]
        found += [file for file in files if file.path != record]
    return found


def is_bytecode(path: str) -> bool:
    """Return whether a path is that of compiled bytecode; Python imports none from there without its source."""
    return path.endswith(".pyc") and os.path.basename(os.path.dirname(path)) == "__pycache__"


def file_problem(recorded: Recorded) -> str | None:
    """Return what is wrong with one recorded file, or None."""
    try:
        algorithm, _, wanted = recorded.digest.partition("=")
        if algorithm not in _DIGESTS:
            said = algorithm or "nothing"
            return f"{recorded.path} cannot be compared: its RECORD gives {said}, not one of {', '.join(_DIGESTS)}"
        if os.path.islink(recorded.path):
            return f"{recorded.path} is a link; wheels hold none"
        size = str(os.path.getsize(recorded.path))
        if recorded.size not in ("", size):
            return f"{recorded.path} has {size} bytes, its RECORD says {recorded.size}"
        digest = hashlib.new(algorithm)
        with open(recorded.path, "rb") as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        return f"{recorded.path} is missing"
    except OSError as failed:
        return f"{recorded.path} cannot be read: {failed.strerror}"
    found = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    return None if found == wanted else f"{recorded.path} was altered: its {algorithm} is not its RECORD's"


def unnamed_files(site_packages: str, named: set[str]) -> list[str]:
    """Return a sentence for every file, and every link to a folder, that no RECORD names; bytecode is left out."""
    found = []
    for folder, folders, names in os.walk(site_packages):
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        own = _INSTALLERS if folder.endswith(".dist-info") and os.path.dirname(folder) == site_packages else ()
        for name in [*names, *linked]:
            path = os.path.join(folder, name)
            if path not in named and name not in own and not is_bytecode(path):
                found.append(f"{path} is named by no RECORD")
    return found


def is_as_packed(path: str, name: str, wheels: list[str]) -> bool:
    """Return whether a file is, to the byte, the one of that name in any of the wheels."""
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            if name not in archive.NameToInfo or archive.getinfo(name).file_size != os.path.getsize(path):
                continue
            with archive.open(name) as packed, open(path, "rb") as installed:
                if all(chunk == installed.read(_CHUNK) for chunk in iter(lambda: packed.read(_CHUNK), b"")):
                    return True
    return False


def record_problems(site_packages: str, wheels: str = "") -> list[str]:
    """Return a sentence for every file that is missing, altered, or that no RECORD names; bytecode is left out.

    Args:
        site_packages: the environment's folder of packages.
        wheels: a folder of the wheels that it was made of, whose hashes were compared before. A file that contradicts
            its RECORD is right if it is one of theirs: some wheels are wrong about themselves (PyNvVideoCodec 2.0.4 has
            two libraries that were changed after its RECORD was written), and some bring the same file as another one
            (flashinfer-python and torch-c-dlpack-ext, build_backend.py), of which the installer keeps one.
    """
    site_packages = os.path.normpath(site_packages)
    recorded = read_records(site_packages)
    found = unnamed_files(site_packages, {entry.path for entry in recorded})
    packed = sorted(glob.glob(os.path.join(wheels, "*.whl"))) if wheels else []

    def problem_of(entry: Recorded) -> str | None:
        problem = file_problem(entry)
        if problem and is_as_packed(entry.path, os.path.relpath(entry.path, site_packages), packed):
            return None
        return problem

    with ThreadPoolExecutor() as pool:
        found += [problem for problem in pool.map(problem_of, recorded) if problem]
    return sorted(found)
