"""The base tree: a bare Debian, made once per recipe and shared by the hosts as the lower layer of their roots."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from typing import TYPE_CHECKING, Final

from rackserve._apt import SUITES, machine_options, machine_sources, mirror_lines
from rackserve._paths import cache_dir
from rackserve._process import run
from rackserve.errors import LabError

from ._state import locked, remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PACKAGES: Final = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "python3",
    "iproute2",
    "sudo",
    "ca-certificates",
)
VARIANT: Final = "minbase"
# what must differ between hosts, and what only the build needs, is not in the tree
HOOK: Final = (
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/machine-id "$1"/etc/resolv.conf "$1"/etc/apt/apt.conf.d/99mmdebstrap'
)
_TIMEOUT_S: Final = 1800


def recipe_digest(release: int, packages: tuple[str, ...] = PACKAGES, machine: str | None = None) -> str:
    """Return what names a tree; another recipe gives another tree and leaves the old one to its hosts."""
    recipe = [release, VARIANT, sorted(packages), HOOK, machine or platform.machine()]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]


def tree_path(release: int) -> Path:
    """Return where the tree of a release is, or would be."""
    return cache_dir() / "trees" / f"debian-{release}-{recipe_digest(release)}"


def base_tree(release: int, progress: Callable[[str], None]) -> Path:
    """Return the tree of a release, made first if it is not there yet."""
    path = tree_path(release)
    if path.is_dir():
        return path
    with locked(path.parent):
        if not path.is_dir():  # else another command made it while this one waited
            _build(release, path, progress)
    return path


def _build(release: int, path: Path, progress: Callable[[str], None]) -> None:
    for left in path.parent.glob(".building-*"):
        with contextlib.suppress(OSError, LabError):  # its mmdebstrap may be ending still; the next build tries again
            remove_tree(left)
    progress(f"making the Debian {release} base tree, once; this takes a minute or so")
    building = path.with_name(f".building-{path.name}-{os.getpid()}")
    options = [f"--aptopt={option}" for option in machine_options()]
    run(
        [
            *("setpriv", "--pdeathsig=TERM"),  # it ends with this command, even if that is killed
            *("mmdebstrap", "--mode=root", f"--variant={VARIANT}", f"--include={','.join(PACKAGES)}", *options),
            *(f"--customize-hook={HOOK}", SUITES[release], str(building), *mirror_lines(machine_sources(), release)),
        ],
        error=LabError,
        what=f"make the Debian {release} base tree",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        timeout_s=_TIMEOUT_S,
    )
    building.rename(path)
