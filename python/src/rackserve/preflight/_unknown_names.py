"""Finds variables of an inventory that no role knows: mostly misspelt names, which Ansible itself ignores."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SHARED: Final = "stack"


def unknown_names(names: Iterable[str], roles: Path) -> list[str]:
    """Return the names with a role's prefix that this role's argument specification does not know.

    A name belongs to the role with the longest matching prefix: `nginx_exporter_x` is not a variable of `nginx`.
    Each is followed by the name that was probably meant, where there is one.

    Args:
        names: variables of a host.
        roles: the folder of all roles.
    """
    known = {path.parents[1].name: _options(path) for path in roles.glob("*/meta/argument_specs.yml")}
    found = []
    for name in sorted(set(names)):
        owner = max((role for role in known if name.startswith(f"{role}_")), key=len, default="")
        if owner and name not in known[owner]:
            found.append(_with_likely(name, name.removeprefix(f"{owner}_"), known[owner], known.get(_SHARED, set())))
    return found


def _options(specification: Path) -> set[str]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # every run of every play reads all of them
    specs = yaml.load(specification.read_text(encoding="utf-8"), loader)  # noqa: S506 - either is a safe loader
    return set(specs["argument_specs"]["main"].get("options") or {})


def _with_likely(name: str, rest: str, own: set[str], shared: set[str]) -> str:
    moved = [wanted for wanted in (f"{_SHARED}_{name}", f"{_SHARED}_{rest}") if wanted in shared]
    likely = moved or difflib.get_close_matches(name, sorted(own), n=1)
    return f"{name} (is it {likely[0]}?)" if likely else name
