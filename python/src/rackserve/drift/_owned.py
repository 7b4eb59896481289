"""What a role owns on a host, as its `vars/owned.yml` declares it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError

from rackserve._schema import Converting, sentences
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path


class Owned(Converting):
    """What a role owns on a host; in paths `*` is a part of one name and `**` any number of names."""

    hosts: str = Field(description="Group of the hosts that get the role; all is every host.")
    files: list[str] = Field(default=[], description="Files, folders and links, compared by content, mode and owner.")
    folders: list[str] = Field(
        default=[], description="Folders that are rackserve's alone: what no role declares in them is reported."
    )
    trees: list[str] = Field(
        default=[], description="Folders with gigabytes, compared by owner, mode, size, time of change and inode."
    )
    changing: list[str] = Field(
        default=[], description="Files and folders whose content changes by itself: only their own mode and owner."
    )
    units: list[str] = Field(default=[], description="Units, compared by their loaded properties and their files.")
    running: list[str] = Field(default=[], description="Units among them that stay active, or inactive, as recorded.")
    packages: list[str] = Field(
        default=[], description="Packages beside the role's __ROLE_packages, compared by version and hold."
    )
    users: list[str] = Field(default=[], description="Users: shell, password, groups, authorised keys.")
    groups: list[str] = Field(default=[], description="Groups, compared by their members.")
    ports: list[int] = Field(default=[], description="TCP ports, compared by who listens there.")
    tables: dict[str, str] = Field(
        default={}, description="nftables tables, such as `inet a`, with the unit while which each is there."
    )
    facts: list[str] = Field(default=[], description="kernel, driver.")
    sysctls: list[str] = Field(default=[], description="Settings of the kernel, as sysctl(8) names them.")


def owned_by_roles(
    roles: Path, groups: Collection[str], template: Callable[[Any], Any], only: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return what the roles own on a host, as the program `host_state` reads it.

    Args:
        roles: the folder of the roles.
        groups: those of the host.
        template: replaces the Jinja expressions in a value.
        only: roles to read; empty reads all.

    Raises:
        InputError: a declaration has an unknown key, or a value of another shape.
    """
    found = {}
    for path in sorted(roles.glob("*/vars/owned.yml")):
        role = path.parents[1].name
        if only and role not in only:
            continue
        declared = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get(f"__{role}_owned", {})
        if declared.get("hosts") not in {"all", *groups}:
            continue
        try:
            owned = Owned.model_validate(template(declared))
        except ValidationError as bad:
            raise InputError(f"{path}: " + "; ".join(sentences(bad, Owned))) from bad
        values = owned.model_dump(exclude={"hosts"})
        values["packages"] = sorted({*values["packages"], *_packages(path.with_name("main.yml"), role)})
        found[role] = values
    return found


def _packages(path: Path, role: str) -> list[str]:
    constants = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return list((constants or {}).get(f"__{role}_packages", []))
