"""A typed view of an inventory, as `ansible-inventory` reads it. Values are not templated: hosts and groups only."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rackserve import _process
from rackserve._paths import project_root
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROUPS: Final = ("vllm_hosts", "edge_hosts", "monitoring_hosts")
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class FleetHost:
    """A host: its name, its groups, and its address where the inventory has it without a template."""

    name: str
    groups: tuple[str, ...]
    address: str | None


@dataclass(frozen=True)
class Fleet:
    """The hosts of one site."""

    inventory: Path
    hosts: tuple[FleetHost, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts' names, in the inventory's order."""
        return tuple(host.name for host in self.hosts)

    def address_of(self, name: str) -> str | None:
        """Return a host's address if the inventory has it without a template."""
        return next((host.address for host in self.hosts if host.name == name), None)


def resolve_inventory(directory: str | None) -> Path:
    """Return the inventory's directory: the one given, or the lab's.

    Raises:
        InputError: there is none.
    """
    path = Path(directory).expanduser() if directory else project_root() / "inventory"
    if not path.exists():
        raise InputError(
            f"there is no inventory {path}; give one with -i DIR, or write one: rackserve init {directory or 'DIR'}"
        )
    return path.resolve()


def load_fleet(inventory: Path) -> Fleet:
    """Read an inventory.

    Raises:
        InputError: ansible-inventory cannot read it, or it has no hosts in any group that rackserve serves.
    """
    bin_dir = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{bin_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(project_root() / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
    }
    output = _process.run(
        ["ansible-inventory", "-i", inventory, "--list"],
        error=InputError,
        what=f"read the inventory {inventory}",
        env=env,
        cwd=project_root(),
        timeout_s=_TIMEOUT_S,
    )
    try:
        listed = json.loads(output)
    except ValueError as error:
        raise InputError(f"cannot read the inventory {inventory}: ansible-inventory did not print JSON") from error
    fleet = parse_inventory(inventory, listed)
    if not any(host.groups for host in fleet.hosts):
        raise InputError(
            f"the inventory {inventory} has no host in the groups {', '.join(_GROUPS)}; add some to its hosts.yml"
        )
    return fleet


def parse_inventory(inventory: Path, listed: Mapping[str, Any]) -> Fleet:
    """Turn the output of `ansible-inventory --list` into a fleet."""
    hostvars: Mapping[str, Mapping[str, Any]] = listed.get("_meta", {}).get("hostvars", {})
    members = {group: _members(listed, group) for group in _GROUPS}
    names = dict.fromkeys([*(name for group in _GROUPS for name in members[group]), *_members(listed, "all")])
    return Fleet(
        inventory,
        tuple(
            FleetHost(
                name,
                tuple(group for group in _GROUPS if name in members[group]),
                _plain_address(hostvars.get(name, {}).get("ansible_host")),
            )
            for name in names
        ),
    )


def _members(listed: Mapping[str, Any], group: str) -> tuple[str, ...]:
    entry = listed.get(group, {})
    below = [name for child in entry.get("children", ()) for name in _members(listed, child)]
    return tuple(dict.fromkeys([*entry.get("hosts", ()), *below]))


def _plain_address(value: object) -> str | None:
    return value if isinstance(value, str) and "{{" not in value else None
