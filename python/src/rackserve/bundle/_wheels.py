"""Hash-locked wheels, downloaded with pip so that the machine's own index configuration is used."""

from __future__ import annotations

import os
import platform
import re
import sys
from typing import TYPE_CHECKING, Final

from rackserve._process import run
from rackserve.bundle._locks import for_target, hashes, pins, read_lock, without
from rackserve.bundle._manifest import sha256_of
from rackserve.bundle._no_wheel import explain, glibc_of
from rackserve.bundle._shim import made_wheels
from rackserve.errors import BundleError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from rackserve.bundle._progress import Progress
    from rackserve.bundle._recipe import RuntimeRecipe

TARGET_MACHINE: Final = "x86_64"  # what the locks of python/locks are for
# pip 26: "WARNING: The candidate selected for download or install is a yanked version: …"; a log's lines have a time.
_YANKED: Final = re.compile(
    r"yanked version: '(?P<name>[^']+)' candidate \(version (?P<version>\S+) at [^\n]*"
    r"(?:\n(?:\S+ )?Reason for being yanked: (?P<reason>[^\n]*))?"
)
GLIBC: Final = {"12": 36, "13": 41}  # Debian release -> minor version of its glibc 2
_OLDEST: Final = 5  # manylinux_2_5, the oldest that PEP 600 names


def target_platforms(machine: str, release: str) -> tuple[str, ...]:
    """Return the wheel platforms that a host takes, best first.

    Args:
        machine: its processor, such as `x86_64`.
        release: its Debian release, such as `12`.
    """
    legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # PEP 600
    names = []
    for minor in range(GLIBC[release], _OLDEST - 1, -1):
        names.append(f"manylinux_2_{minor}_{machine}")
        names.extend(f"{name}_{machine}" for since, name in legacy.items() if since == minor)
    return (*names, f"linux_{machine}")


def download(
    lock: Path,
    into: Path,
    python: str,
    scratch: Path,
    progress: Progress,
    *,
    machine: str | None = None,
    release: str = "12",
) -> None:
    """Download every wheel of a lock file; those already there are kept.

    Args:
        lock: requirements with hashes.
        into: the folder for the wheels.
        python: the target's Python, such as `3.11`.
        scratch: a folder for what is on its way.
        progress: called with how much has arrived.
        machine: the target's processor; without it, this machine's.
        release: the target's Debian release; of several, the oldest.

    Raises:
        BundleError: when a wheel cannot be had for the target, or its hash differs.
        InputError: when a line of the lock is no pin, or has a marker.
    """
    into.mkdir(parents=True, exist_ok=True)
    machine = machine or platform.machine()
    marked = [pin.name for pin in read_lock(lock.read_text(encoding="utf-8")) if pin.marker]
    if marked:
        raise InputError(f"{lock.name} has markers ({', '.join(marked)}), which pip would evaluate for this machine")
    pinned = pins(lock.read_text(encoding="utf-8"))
    cpu_build = pinned.get("torch", "").endswith("+cpu")
    hint = " (torch's CPU build is on PyTorch's own index: name it in pip.conf)" if cpu_build else ""
    arriving = scratch / f"arriving-{lock.stem}"  # pip moves all of them at the end
    arriving.mkdir(parents=True, exist_ok=True)
    awaited = max(0, len(pinned) - len([*into.glob("*.whl")]))
    log = scratch / f"pip-{lock.stem}.log"
    with progress.filling(arriving, files=awaited):
        try:
            run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
                    *("--only-binary=:all:", "--python-version", python, "--dest", into, "--requirement", lock),
                    *(f"--platform={name}" for name in target_platforms(machine, release)),
                    *("--log", log),
                ],
                error=BundleError,
                what=f"download the wheels of {lock.name}{hint}",
                env={**os.environ, "TMPDIR": str(arriving)},
            )
        except BundleError as failed:
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            why = explain(text, f"Python {python} on {machine}, Debian {release},", GLIBC[release])
            if why is None:
                raise
            raise BundleError(f"cannot download the wheels of {lock.name}{hint}: {why}") from failed
    for sentence in yanked(log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""):
        progress.say(f"  {lock.name}: {sentence}")


def yanked(log: str) -> list[str]:
    """Return a sentence for each release in pip's log that its author has withdrawn; a pin still takes it (PEP 592)."""
    return list(
        dict.fromkeys(
            f"{match['name']} {match['version']} was withdrawn by its author: {match['reason'] or 'no reason given'}"
            for match in _YANKED.finditer(log)
        )
    )


def build_wheelhouse(
    recipe: RuntimeRecipe, lock: Path, into: Path, scratch: Path, progress: Progress, *, release: str = "12"
) -> None:
    """Fill a folder with the wheels of a runtime's lock and no other: downloaded, or made here where no index has it.

    Args:
        recipe: the runtime.
        lock: its lock.
        into: the folder.
        scratch: a folder for what is on its way.
        progress: called with how much has arrived.
        release: the oldest Debian release of the hosts that it is for.

    Raises:
        BundleError: when a wheel cannot be had, or one that is made here is not the one that the lock pins.
        InputError: when a line of the lock is no pin.
    """
    text = for_target(lock.read_text(encoding="utf-8"), recipe.python)
    made, pinned = made_wheels(pins(text)), hashes(text)
    for wheel in made:
        if wheel.sha256 not in pinned[wheel.name]:
            raise BundleError(
                f"{lock} does not pin {wheel.file_name} as it is made here (sha256 {wheel.sha256}); "
                f"run python/tools/refresh_locks.sh vllm {recipe.vllm} {recipe.flavour}"
            )
    wanted = scratch / lock.name
    wanted.write_text(without(text, {wheel.name for wheel in made}), encoding="utf-8")
    download(wanted, into, recipe.python, scratch, progress, machine=TARGET_MACHINE, release=release)
    for wheel in made:
        (into / wheel.file_name).write_bytes(wheel.to_bytes())
    known = frozenset[str]().union(*pinned.values())
    for path in into.glob("*.whl"):
        # Of an older lock with the same name, or for a newer target that has this lock too.
        if sha256_of(path) not in known or glibc_of(path.name) > GLIBC[release]:
            path.unlink()
