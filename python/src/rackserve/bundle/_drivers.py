"""The NVIDIA driver of a headless host as one set: module source, libraries, tools, kernel headers and compiler.

`_driver_choice` decides which version and packages; apt finds all that they depend on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rackserve.bundle._debs import download, index_repository, read_sources
from rackserve.bundle._driver_choice import all_parts, choose, extra_names, held_back, refuse_unknown, sort_extras

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rackserve.bundle._debs import AptView
    from rackserve.bundle._driver_choice import Available, Flavour
    from rackserve.bundle._progress import Progress

# dkms makes a key for Secure Boot with openssl and signs modules by it; mokutil enrols that key.
_TOOLS: Final = ("dkms", "gcc", "make", "mokutil", "openssl")
_HEADERS: Final = re.compile(r"^linux-headers-(\d+\.\d+\.\d+\S*) - ", re.MULTILINE)
_MADISON: Final = re.compile(r"^\s*(?P<name>\S+) \| (?P<version>\S+) \| ", re.MULTILINE)


@dataclass(frozen=True)
class DriverSet:
    """A driver set as it lies in its repository.

    `version` is the driver's own, such as 535.261.03; `packages` is name -> version of the whole repository, `install`
    the names that a host asks for; `kernels` are named as `uname -r` does; each of `missing` ends with a reason.
    """

    release: str
    version: str
    flavour: Flavour
    packages: dict[str, str]
    kernels: tuple[str, ...]
    missing: tuple[str, ...]
    install: tuple[str, ...]


def build_driver_set(
    sources: Sequence[str],
    kernels: Sequence[str],
    flavour: Flavour,
    *,
    release: str,
    into: Path,
    scratch: Path,
    progress: Progress,
    key: Path | None = None,
    version: str | None = None,
) -> DriverSet:
    """Download a driver set with all it depends on, and make a signed repository of it.

    Args:
        sources: lines of a sources.list; Debian's need the components `_driver_choice.COMPONENTS`.
        kernels: `uname -r` of every kind of host.
        flavour: the proprietary or the open kernel modules.
        release: the Debian release that the sources are of.
        into: the repository's folder.
        scratch: a folder for apt's lists and caches.
        progress: called with how much has arrived.
        key: the archive key's folder; None is this controller's own key.
        version: the driver's exact version; None takes the newest that is complete.

    Raises:
        InputError: when a kernel has no headers there, or no driver (or not that version) is complete.
        BundleError: when the sources cannot be read or a dependency is not in them.
    """
    view = read_sources(sources, scratch)
    version, packages, missing = driver_packages(view, kernels, flavour, version)
    view.prefer(f"Package: ?*\nPin: version {version}-*\nPin-Priority: 1001\n")
    download(view, packages, into, progress)
    return DriverSet(release, version, flavour, index_repository(into, key), tuple(kernels), missing, packages)


def driver_packages(
    view: AptView, kernels: Sequence[str], flavour: Flavour, version: str | None = None
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the driver's version, the packages that a host installs, and what is missing.

    Raises:
        InputError: when a kernel has no headers in the sources, or no driver (or not that version) is complete.
    """
    listed = view.cache("search", "--names-only", "^linux-headers-[0-9]", what="list kernel headers")
    refuse_unknown(kernels, [kernel for kernel in _HEADERS.findall(listed) if "-common" not in kernel])
    available = _available(view, all_parts(flavour))
    chosen, packages = choose(available, flavour, version)
    present, missing = sort_extras(_available(view, extra_names(chosen)), chosen)
    headers = tuple(f"linux-headers-{kernel}" for kernel in kernels)
    return chosen, (*packages, *present, *_TOOLS, *headers), (*held_back(available, flavour, chosen), *missing)


def _available(view: AptView, names: Iterable[str]) -> Available:
    listed = view.cache("madison", *sorted(names), what="list driver packages")
    found: Available = {}
    for match in _MADISON.finditer(listed):
        found[match["name"]] = (*found.get(match["name"], ()), match["version"])
    return found
