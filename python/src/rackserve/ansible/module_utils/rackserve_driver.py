"""What a change of driver would do to a host, read from the output of apt, dpkg and dkms: pure functions.

Standard library only, Python 3.9 and newer.
"""

from __future__ import annotations

import re

# The kernel itself, not its headers: a driver must never bring another one, or be the reason that one goes.
KERNEL_IMAGE = re.compile(r"linux-image-\S+|linux-modules-\S+|linux-(?:generic|virtual)\S*")
_NVIDIA = re.compile(
    r"(?:lib)?nvidia-\S+|libcuda1|libcudadebugger1|firmware-nvidia-\S+|cuda-drivers\S*|xserver-xorg-video-nvidia\S*"
)
_INSTALL = re.compile(r"^Inst (?P<name>[^\s:]+)\S* (?:\[(?P<old>[^\]]+)\] )?\((?P<new>\S+)", re.MULTILINE)
_REMOVE = re.compile(r"^(?:Remv|Purg) (?P<name>[^\s:]+)", re.MULTILINE)
_DKMS = re.compile(
    r"^(?P<module>nvidia[\w-]*)/(?P<version>[\d.]+)(?:, (?P<kernel>\S+), \S+)?: (?P<state>\w+)", re.MULTILINE
)


def is_driver(name: str) -> bool:
    """Return whether a package is a part of a driver."""
    return _NVIDIA.fullmatch(name) is not None


def upstream(version: str) -> str:
    """Return the driver's own version within a package's: 535.309.01 of 535.309.01-0+deb12u1."""
    return version.split(":", 1)[-1].split("-", 1)[0]


def parse_simulation(text: str) -> tuple[dict[str, str], list[str]]:
    """Read `apt-get --simulate install`: the version that each package would get, and what would be removed."""
    return {m["name"]: m["new"] for m in _INSTALL.finditer(text)}, [m["name"] for m in _REMOVE.finditer(text)]


def refusals(installs: dict[str, str], removals: list[str]) -> list[str]:
    """Return why a change must not be made: it would move the kernel, or take something that is no driver's."""
    kernels = sorted(name for name in [*installs, *removals] if KERNEL_IMAGE.fullmatch(name))
    foreign = sorted(name for name in removals if not is_driver(name) and name not in kernels)
    found = [f"it would change the kernel ({', '.join(kernels)})"] if kernels else []
    return found + ([f"it would remove {', '.join(foreign)}"] if foreign else [])


def to_install(
    names: list[str], carried: dict[str, str], present: dict[str, str], version: str, older: set[str]
) -> list[str]:
    """Return what apt is asked for, as name=version.

    Of the driver itself every package has exactly the set's version, up or down; of the rest (compiler, headers) what
    is not older than the set's is kept, as it may be a security update.

    Args:
        names: packages that the set asks for.
        carried: versions of the whole set by name.
        present: what is installed.
        version: the driver's own.
        older: installed packages that are older than the set's.
    """
    exact = {name for name in carried if upstream(carried[name]) == version}
    wanted = [name for name in names if name not in present or (name not in exact and name in older)]
    wanted += [name for name in sorted(exact) if name in present and present[name] != carried[name]]
    return [f"{name}={carried[name]}" for name in dict.fromkeys(wanted)]


def parse_dkms(text: str, version: str) -> tuple[str | None, set[str]]:
    """Read `dkms status`: the name of the driver's module in that version, and the kernels that it is installed for."""
    rows = [match for match in _DKMS.finditer(text) if match["version"] == version]
    kernels = {row["kernel"] for row in rows if row["state"] == "installed" and row["kernel"]}
    return (rows[0]["module"] if rows else None), kernels


def to_hold(carried: dict[str, str], present: dict[str, str], version: str, kernels: list[str]) -> list[str]:
    """Return the installed packages that nothing may move: the driver's, and image and headers of its kernels."""
    driver = [name for name in carried if name in present and (upstream(carried[name]) == version or is_driver(name))]
    about = [f"linux-{kind}-{kernel}" for kernel in kernels for kind in ("image", "headers")]
    meta = [
        f"linux-{kind}-{suffix}" for kind in ("image", "headers") for suffix in ("amd64", "cloud-amd64", "rt-amd64")
    ]
    return sorted({*driver, *(name for name in (*about, *meta) if name in present)})
