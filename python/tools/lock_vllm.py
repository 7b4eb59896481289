"""Makes the lock of a vLLM release from its row of python/locks/vllm-releases.toml.

uv resolves for the target from metadata alone, so that no wheel of CUDA's gigabytes is downloaded; what it found says
every wheel's name, size and sha256. Of those, the one that the target installs is pinned, not every platform's. Wheels
that no index has (rackserve.bundle._shim) are made first and resolved like the others.

    python python/tools/lock_vllm.py 0.33.0 cuda   # one lock
    python python/tools/lock_vllm.py               # all of them
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import tomllib
from datetime import date  # noqa: TC003  pydantic reads it
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from rackserve._paths import project_root
from rackserve._process import run
from rackserve.bundle._locks import pins
from rackserve.bundle._recipe import RuntimeRecipe
from rackserve.bundle._shim import made_wheels
from rackserve.bundle._wheels import TARGET_MACHINE, target_platforms
from rackserve.errors import InputError, RackserveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOCKS = project_root() / "python" / "locks"
GIGA = 10**9


class Row(RuntimeRecipe):
    """One lock to make: see the head of vllm-releases.toml."""

    until: date | None = None
    require: tuple[str, ...] = ()
    override: tuple[str, ...] = ()

    @property
    def requirements(self) -> tuple[str, ...]:
        """What uv resolves: vLLM, the row's own lines, and the installer that the whole project uses."""
        vllm = () if "vllm" in exact(self.require) else (f"vllm=={self.vllm}",)
        return (*vllm, *self.require, f"uv=={pins((LOCKS / 'uv.txt').read_text(encoding='utf-8'))['uv']}")


def exact(requirements: Iterable[str]) -> dict[str, str]:
    """Return name -> version of those requirements that ask for one version."""
    asked = [Requirement(line) for line in requirements]
    return {
        canonicalize_name(one.name): spec.version
        for one in asked
        for spec in one.specifier
        if spec.operator == "==" and len(one.specifier) == 1 and not one.marker
    }


def read_rows(path: Path) -> tuple[Row, ...]:
    """Read the table of releases."""
    return tuple(Row.model_validate(row) for row in tomllib.loads(path.read_text(encoding="utf-8"))["lock"])


def target_tags(python: str) -> tuple[Tag, ...]:
    """Return the wheel tags that a host with the given Python takes, best first."""
    major, minor = (int(part) for part in python.split("."))
    platforms = target_platforms(TARGET_MACHINE, "12")
    return (
        *cpython_tags((major, minor), platforms=platforms),
        *compatible_tags((major, minor), f"cp{major}{minor}", platforms),
    )


def best_wheel(wheels: Iterable[dict[str, Any]], tags: Sequence[Tag]) -> dict[str, Any]:
    """Return the wheel that an installer takes: the best tag, then the highest build number.

    Args:
        wheels: of one package, as a pylock.toml has them (PEP 751).
        tags: what the target takes, best first.

    Raises:
        InputError: when the target takes none of them.
    """
    rank = {tag: place for place, tag in enumerate(tags)}
    found = []
    for wheel in wheels:
        name = unquote(str(wheel.get("name") or wheel.get("url") or wheel["path"]).rsplit("/", 1)[-1])
        _, _, build, tagged = parse_wheel_filename(name)
        places = [rank[tag] for tag in tagged if tag in rank]
        if places:
            found.append(((-min(places), build), wheel))
    if not found:
        names = ", ".join(str(wheel.get("url") or wheel.get("path")) for wheel in wheels) or "none at all"
        raise InputError(f"no wheel for the target among: {names}; constrain that package in vllm-releases.toml")
    return max(found, key=lambda item: item[0])[1]


def size_of(wheel: dict[str, Any]) -> int:
    """Return a wheel's bytes: as its index says, or of the file itself where it lies on this machine."""
    return wheel["size"] if "size" in wheel else Path(unquote(urlsplit(wheel["url"]).path)).stat().st_size


def lock_text(row: Row, packages: Iterable[dict[str, Any]]) -> str:
    """Return the lock's text: one wheel a pin, and what they weigh together.

    Args:
        row: what the lock is for.
        packages: of a pylock.toml.
    """
    tags = target_tags(row.python)
    chosen = [(package, best_wheel(package.get("wheels", ()), tags)) for package in packages]
    size = sum(size_of(wheel) for _, wheel in chosen) / GIGA
    target = f"{row.flavour}, Python {row.python}, {TARGET_MACHINE}, glibc up to 2.36"
    lines = [
        f"# vLLM {row.vllm} for {target}: {len(chosen)} wheels, {size:.1f} GB.",
        "# Made by python/tools/refresh_locks.sh from vllm-releases.toml, which says what is held back and why.",
    ]
    for package, wheel in chosen:
        lines += [f"{package['name']}=={package['version']} \\", f"    --hash=sha256:{wheel['hashes']['sha256']}"]
    return "\n".join(lines) + "\n"


def environment(row: Row, made: Path) -> dict[str, str]:
    """Return uv's environment: the machine's own, and the folder of the wheels that are made here.

    CUDA's wheels come from the package index alone: on a further one, torch's CPU build 2.13.0+cpu would answer
    `torch==2.13.0` too.
    """
    further = {"UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"} if row.flavour == "cuda" else set()
    own = {name: value for name, value in os.environ.items() if name not in further}
    # The variable, since the option of the same name would replace what the machine names.
    return {**own, "UV_FIND_LINKS": ",".join(filter(None, (own.get("UV_FIND_LINKS"), str(made))))}


def resolve(row: Row, scratch: Path) -> list[dict[str, Any]]:
    """Let uv find every package of a row, from metadata alone.

    Raises:
        RackserveError: when it finds no answer.
    """
    for wheel in made_wheels(exact(row.requirements)):
        (scratch / wheel.file_name).write_bytes(wheel.to_bytes())
    (scratch / "requirements.in").write_text("\n".join(row.requirements), encoding="utf-8")
    (scratch / "overrides.in").write_text("\n".join(row.override), encoding="utf-8")
    output = scratch / "pylock.toml"
    dated = ("--exclude-newer", f"{row.until}T00:00:00Z", "--exclude-newer-package", "uv=false") if row.until else ()
    run(
        [
            *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--format", "pylock.toml"),
            *("--python-version", row.python, "--python-platform", f"{TARGET_MACHINE}-manylinux_2_36"),
            *("--only-binary", ":all:", "--override", scratch / "overrides.in", *dated),
            *("--output-file", output, scratch / "requirements.in"),
        ],
        what=f"resolve vLLM {row.vllm} for {row.flavour}",
        env=environment(row, scratch),
    )
    packages: list[dict[str, Any]] = tomllib.loads(output.read_text(encoding="utf-8"))["packages"]
    return packages


def main(argv: Sequence[str] | None = None) -> int:
    """Make the locks that were asked for."""
    parser = argparse.ArgumentParser(description="Make locks of vLLM releases from python/locks/vllm-releases.toml.")
    parser.add_argument("vllm", nargs="?", help="one release; without it, every row")
    parser.add_argument("flavour", nargs="?", choices=("cpu", "cuda"), help="one flavour of it")
    parser.add_argument("--into", type=Path, default=LOCKS, help="folder to write to (default: python/locks)")
    asked = parser.parse_args(argv)
    try:
        rows = [
            row
            for row in read_rows(LOCKS / "vllm-releases.toml")
            if asked.vllm in (None, row.vllm) and asked.flavour in (None, row.flavour)
        ]
        if not rows:
            raise InputError(f"vllm-releases.toml has no row for vLLM {asked.vllm} {asked.flavour or ''}; add one")
        for row in rows:
            with tempfile.TemporaryDirectory() as scratch:  # holds the made wheels that lock_text measures
                text = lock_text(row, resolve(row, Path(scratch)))
            path: Path = asked.into / f"{row.lock_name}.txt"
            draft = path.with_suffix(".new")
            draft.write_text(text, encoding="utf-8")
            draft.rename(path)
            print(f"{path}: {len(pins(text))} pins")
    except RackserveError as failed:
        print(f"lock_vllm: {failed}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
