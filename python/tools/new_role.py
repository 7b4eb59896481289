"""Writes a small, complete role and its scenario: it installs a Debian package, configures its unit and starts it.

    python python/tools/new_role.py chrony
    python python/tools/new_role.py time_sync --package chrony --unit chrony.service

The role passes `make static` as it is. What is printed at the end is left to its author.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

SKELETON: Final = Path(__file__).with_name("role_skeleton")
PLACEHOLDER: Final = "newrole"
# Prefixes of variables that are no role's.
RESERVED: Final = ("ansible", "rackserve")
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.@-]+\.service")
_LEFT: Final = """
roles/{name} and molecule/{name} are written, and pass `make static`. What is left to do by hand:

1. roles/{name}: replace the drop-in by the configuration of {package}, and `verify.yml` by a check of what it does.
   Then run `make docs`, which writes the table of README.md.
2. playbooks/: add `- role: {name}` to the play of the hosts that it is for; a new playbook goes into site.yml too.
3. python/src/rackserve/preflight/: refuse what an inventory or a host can have wrong before anything changes.
4. molecule/{name}/tests: one test for each behaviour. `make bundle scenario NAME={name}` runs them on hosts of the lab,
   with {package} in its bundle. Name the scenario in .ci/test.
5. docs/architecture.md and CHANGELOG.md: what an operator gets.
"""


class RoleError(Exception):
    """A name that no new role can have."""


def refuse_bad(root: Path, name: str, package: str, unit: str) -> None:
    """Refuses what the files could not be named by.

    Args:
        root: The repository.
        name: The role's name.
        package: The Debian package that it installs.
        unit: The unit of that package.

    Raises:
        RoleError: The role or its scenario exists, or a name is not one.
    """
    if not _NAME.fullmatch(name):
        raise RoleError(
            f"'{name}' cannot be a role's name: use lower case, digits and single underscores, as in time_sync"
        )
    if name in {*RESERVED, PLACEHOLDER}:
        raise RoleError(
            f"'{name}' cannot be a role's name: variables named {name}_... belong to no role; choose another"
        )
    for taken in (root / "roles" / name, root / "molecule" / name):
        if taken.exists():
            raise RoleError(f"{taken.relative_to(root)} exists; choose another name, or remove it first")
    if not _PACKAGE.fullmatch(package):
        raise RoleError(f"'{package}' is not the name of a Debian package; give it with --package")
    if not _UNIT.fullmatch(unit):
        raise RoleError(f"'{unit}' is not the name of a service, such as chrony.service; give it with --unit")


def write_role(root: Path, name: str, package: str, unit: str) -> list[Path]:
    """Writes the role and its scenario.

    Args:
        root: The repository.
        name: The role's name.
        package: The Debian package that it installs.
        unit: The unit of that package.

    Returns:
        The files.

    Raises:
        RoleError: A name is refused; nothing was written.
    """
    refuse_bad(root, name, package, unit)
    words = {f"[{PLACEHOLDER}]": f"[{package}]", f"{PLACEHOLDER}.service": unit, PLACEHOLDER: name}
    written = []
    for source in sorted(path for path in SKELETON.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        place = source.relative_to(SKELETON)
        target = root / (place if place.parts[0] == "roles" else Path("molecule", PLACEHOLDER, place))
        target = Path(str(target).replace(PLACEHOLDER, name))
        text = source.read_text(encoding="utf-8")
        for word, replacement in words.items():
            text = text.replace(word, replacement)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        written.append(target)
    return written


def main(argv: list[str] | None = None) -> int:
    """Writes one role.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        0, or 2 when a name is refused.
    """
    parser = argparse.ArgumentParser(description="Writes a small, complete role and its scenario.")
    parser.add_argument("name", help="the role's name, such as chrony or time_sync")
    parser.add_argument("--package", help="the Debian package that it installs (default: the name, with dashes)")
    parser.add_argument("--unit", help="the service of that package (default: the package's name)")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="the repository")
    args = parser.parse_args(argv)
    package = args.package or args.name.replace("_", "-")
    try:
        written = write_role(args.root, args.name, package, args.unit or f"{package}.service")
    except RoleError as refusal:
        print(f"new_role: {refusal}", file=sys.stderr)
        return 2
    for path in written:
        print(path.relative_to(args.root))
    print(_LEFT.format(name=args.name, package=package), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
