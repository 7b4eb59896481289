"""What `.ci/setup` installs: the controller's lock, which a bundle carries, and the developers' lock beside it."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING

import pytest

from rackserve._paths import project_root

if TYPE_CHECKING:
    from pathlib import Path

LOCKS = project_root() / "python/locks"
SOURCES = project_root() / "python/src/rackserve"
# Boards are made on a developer's machine, and programs run in environments of their own.
NOT_THE_CONTROLLERS = (SOURCES / "dashboards", SOURCES / "programs")


def pins(name: str) -> dict[str, str]:
    """Return the pins of a lock, each with its block of hashes."""
    found = re.findall(
        r"^([a-z0-9._-]+)==\S+ \\\n((?: +--hash=\S+(?: \\)?\n)+)", (LOCKS / name).read_text(), re.MULTILINE
    )
    return dict(found)


def inputs(name: str) -> set[str]:
    return set(re.findall(r"^[a-z0-9._-]+", (LOCKS / name).read_text(), re.MULTILINE))


def imports(path: Path) -> set[str]:
    """Return the top-level names that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {module.split(".")[0] for module in modules}


@pytest.mark.parametrize("name", ["controller.txt", "dev.txt"])
def test_every_line_of_a_lock_has_hashes(name: str) -> None:
    lines = re.findall(r"^\S.*==", (LOCKS / name).read_text(), re.MULTILINE)
    assert len(pins(name)) == len(lines) > 0


def test_the_two_locks_share_no_package() -> None:
    assert pins("controller.txt").keys() & pins("dev.txt").keys() == set()


def test_what_is_asked_for_is_locked() -> None:
    assert inputs("controller.in") <= pins("controller.txt").keys()
    assert inputs("dev.in") <= pins("controller.txt").keys() | pins("dev.txt").keys()


def test_the_controller_has_whatever_it_imports() -> None:
    files = [path for path in SOURCES.rglob("*.py") if not any(map(path.is_relative_to, NOT_THE_CONTROLLERS))]
    names = {name for path in files for name in imports(path)} - set(sys.stdlib_module_names) - {"rackserve"}
    distributions = packages_distributions()
    owners = {name: {re.sub(r"[-_.]+", "-", owner).lower() for owner in distributions[name]} for name in names}
    assert {name for name, owner in owners.items() if not owner & pins("controller.txt").keys()} == set()
    assert "pydantic" in names
