"""Which NVIDIA driver a set of sources can give, and by which packages: pure functions over names and versions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Flavour = Literal["proprietary", "open"]
Available = dict[str, tuple[str, ...]]  # package -> versions in the sources

COMPONENTS: Final = ("main", "contrib", "non-free", "non-free-firmware")
_UPSTREAM: Final = re.compile(r"(?:\d+:)?(?P<upstream>\d+(?:\.\d+)+)(?:-.*)?")


@dataclass(frozen=True)
class Layout:
    """How a publisher cuts the driver into packages: which have its very version, which have versions of their own."""

    publisher: str
    module: Mapping[Flavour, str]
    exact: tuple[str, ...]
    near: tuple[str, ...] = ()

    def driver(self, flavour: Flavour) -> tuple[str, ...]:
        """Name the packages that must all have one version."""
        return (self.module[flavour], *self.exact)


# Debian: nvidia-graphics-drivers of bookworm and trixie; libcuda1 opens libnvidia-nvvm4 at run time and does not depend
# on it. NVIDIA: "Compute-only (headless)" in its driver installation guide for Debian.
_LAYOUTS: Final = (
    Layout(
        "Debian",
        {"proprietary": "nvidia-kernel-dkms", "open": "nvidia-open-kernel-dkms"},
        ("libcuda1", "libnvidia-cfg1", "libnvidia-ml1", "libnvidia-nvvm4", "nvidia-smi", "firmware-nvidia-gsp"),
        ("nvidia-modprobe", "nvidia-persistenced"),
    ),
    Layout(
        "NVIDIA",
        {"proprietary": "nvidia-kernel-dkms", "open": "nvidia-kernel-open-dkms"},
        ("nvidia-driver-cuda", "nvidia-modprobe", "nvidia-persistenced"),
    ),
)
# Parts that some hosts need, in the driver's very version: (what, why, names); {branch} is its first number.
_EXTRAS: Final = (
    (
        "fabric manager",
        "without it CUDA does not start on a host with NVSwitch (HGX, DGX)",
        ("nvidia-fabricmanager-{branch}", "nvidia-fabricmanager"),
    ),
    ("NSCQ", "without it a host with NVSwitch shows no figures of it", ("libnvidia-nscq-{branch}", "libnvidia-nscq")),
)


def all_parts(flavour: Flavour) -> set[str]:
    """Name every package that a driver may be made of, whoever publishes it."""
    return {name for layout in _LAYOUTS for name in (*layout.driver(flavour), *layout.near)}


def extra_names(version: str) -> set[str]:
    """Name every package that an extra part of a driver may be."""
    return {name for *_, names in _EXTRAS for name in _named(names, version)}


def refuse_unknown(kernels: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a kernel whose headers the sources lack: its module could not be built on the host.

    Raises:
        InputError: naming it, and those whose headers there are; or when no kernel is named.
    """
    if not kernels:
        raise InputError(
            "no kernel is named, and a driver's module is built on the host; name the output of `uname -r` there"
        )
    if unknown := [kernel for kernel in kernels if kernel not in known]:
        raise InputError(
            f"the sources have no headers of kernel {', '.join(unknown)}; boot the hosts into one that has headers "
            f"there, and name it: {', '.join(sorted(known)) or 'there are none'}"
        )


def choose(available: Available, flavour: Flavour, version: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Choose the newest driver (or the one named) whose parts are all there in one version; return it and its packages.

    Raises:
        InputError: when there is none, with what there is of it.
    """
    complete = {
        found: layout
        for layout in reversed(_LAYOUTS)
        if all(name in available for name in layout.near)
        for found in set.intersection(*(_upstream(available, name) for name in layout.driver(flavour)))
    }
    newest = max(complete, key=_order, default=None)
    wanted = version or newest
    if wanted is None or wanted not in complete:
        raise InputError(_incomplete(available, flavour, version, tuple(complete)))
    return wanted, (*complete[wanted].driver(flavour), *complete[wanted].near)


def held_back(available: Available, flavour: Flavour, version: str) -> tuple[str, ...]:
    """Say which packages keep a set from being newer than it is: a newer driver often closes holes in the older one."""
    layout = next(
        layout for layout in _LAYOUTS if all(version in _upstream(available, n) for n in layout.driver(flavour))
    )
    newest = max({found for name in layout.driver(flavour) for found in _upstream(available, name)}, key=_order)
    lacking = [name for name in layout.driver(flavour) if newest not in _upstream(available, name)]
    sentence = f"driver {newest}: the sources lack it for {', '.join(lacking)}; the whole set is {version}"
    return (sentence,) if lacking else ()


def sort_extras(available: Available, version: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the extra packages that are there in exactly a version, and a sentence for each part that is not."""
    present, missing = [], []
    for part, why, names in _EXTRAS:
        candidates = _named(names, version)
        fitting = [name for name in candidates if version in _upstream(available, name)]
        if fitting:
            present.append(fitting[0])
        else:
            others = ", ".join(f"{name} {v}" for name in candidates for v in available.get(name, ()))
            having = f"have only {others}" if others else f"have neither {' nor '.join(candidates)}"
            missing.append(f"{part} {version}: the sources {having}; {why}")
    return tuple(present), tuple(missing)


def _incomplete(available: Available, flavour: Flavour, version: str | None, complete: tuple[str, ...]) -> str:
    if complete:
        return f"driver {version} ({flavour}) is not complete in the sources; complete there: {', '.join(complete)}"
    lines = [
        f"{layout.publisher}: "
        + ", ".join(
            f"{n} {'/'.join(available.get(n, ('is missing',)))}" for n in (*layout.driver(flavour), *layout.near)
        )
        for layout in _LAYOUTS
    ]
    hint = f"name a mirror with {' '.join(COMPONENTS)}, or another flavour"
    return f"no {flavour} NVIDIA driver has all its parts in one version; {hint}. Found\n  " + "\n  ".join(lines)


def _named(names: Sequence[str], version: str) -> tuple[str, ...]:
    return tuple(name.format(branch=version.partition(".")[0]) for name in names)


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _upstream(available: Available, name: str) -> set[str]:
    matches = (_UPSTREAM.fullmatch(version) for version in available.get(name, ()))
    return {match["upstream"] for match in matches if match}
