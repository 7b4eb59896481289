"""Hash-locked wheels, downloaded with pip so that the machine's own index configuration is used."""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from typing import TYPE_CHECKING, Final

from rackserve._process import run
from rackserve.bundle._shim import shim_bytes, shim_name
from rackserve.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    from rackserve.bundle._recipe import RuntimeRecipe

_PINNED: Final = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>\S+)")
_GLIBC_MINOR: Final = range(5, 37)  # manylinux_2_5 up to glibc 2.36, Debian 12's


def pins(lock: str) -> dict[str, str]:
    """Return name -> version of every pin of a lock's text."""
    found = (_PINNED.match(line) for line in lock.splitlines())
    return {match["name"]: match["version"] for match in found if match}


def without_shim(lock: str, vllm: str) -> str:
    """Return a lock's text without the metadata wheel, which is made here and not downloaded."""
    return re.sub(rf"^vllm=={re.escape(vllm)}\+cpu \\\n.*\n", "", lock, flags=re.MULTILINE)


def download(lock: Path, into: Path, python: str) -> None:
    """Download every wheel of a lock file; those already there are kept.

    Args:
        lock: requirements with hashes.
        into: the folder for the wheels.
        python: the target's Python, such as `3.11`.

    Raises:
        BundleError: when a wheel cannot be had for the target, or its hash differs.
    """
    into.mkdir(parents=True, exist_ok=True)
    machine = platform.machine()
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINOR]
    platforms += [f"manylinux2014_{machine}", f"manylinux1_{machine}", f"linux_{machine}"]
    run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary=:all:", "--python-version", python, "--dest", into, "--requirement", lock),
            *(f"--platform={name}" for name in platforms),
        ],
        error=BundleError,
        what=f"download the wheels of {lock.name} (torch's CPU build is on PyTorch's own index: name it in pip.conf)",
    )


def build_wheelhouse(recipe: RuntimeRecipe, lock: Path, into: Path, scratch: Path) -> None:
    """Fill a folder with every wheel of a runtime's lock, the metadata wheel included.

    Raises:
        BundleError: when a wheel cannot be had, or the metadata wheel is not the one that the lock pins.
    """
    text = lock.read_text(encoding="utf-8")
    wanted = scratch / lock.name
    wanted.write_text(without_shim(text, recipe.vllm), encoding="utf-8")
    download(wanted, into, recipe.python)
    shim = shim_bytes(recipe.vllm)
    if hashlib.sha256(shim).hexdigest() not in text:
        raise BundleError(f"{lock} does not pin {shim_name(recipe.vllm)}; run python/tools/refresh_locks.sh")
    (into / shim_name(recipe.vllm)).write_bytes(shim)
