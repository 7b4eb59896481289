"""Snapshots: what a host had written when it was powered off, kept as a read-only layer for other hosts' roots."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rackserve._paths import state_dir
from rackserve.errors import InputError, LabError

from . import _host
from ._state import labs_dir, locked, remove_tree, write_json

if TYPE_CHECKING:
    from ._state import HostRecord

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")


@dataclass(frozen=True)
class Snapshot:
    """A snapshot. `layers` is what a clone lies on, top first: what the host wrote, and what it lay on itself."""

    name: str
    debian_release: int
    layers: tuple[Path, ...]


def snapshots_dir() -> Path:
    """Return the folder of all snapshots: they belong to no lab, and outlive the one that they were made in."""
    return state_dir() / "snapshots"


def load_snapshot(name: str) -> Snapshot:
    """Read one snapshot; an unknown one is refused with the known ones."""
    path = _folder(name) / "snapshot.json"
    if not path.exists():
        known = ", ".join(found.name for found in load_snapshots()) or "none"
        raise LabError(f"there is no snapshot {name!r} (there are: {known}); make it with rackserve lab snapshot")
    data = json.loads(path.read_text())
    return Snapshot(data["name"], data["debian_release"], tuple(map(Path, data["layers"])))


def load_snapshots() -> list[Snapshot]:
    """Read all snapshots, by name."""
    return [load_snapshot(path.parent.name) for path in sorted(snapshots_dir().glob("[!.]*/snapshot.json"))]


def keep(host: HostRecord, name: str) -> Snapshot:
    """Power a host off and keep what it wrote as a snapshot; the host is left without a root, to be made again."""
    with locked(snapshots_dir()):
        folder = _folder(name)
        if folder.exists():
            raise LabError(
                f"snapshot {name} exists; take another name, or remove it: rackserve lab snapshots --remove {name}"
            )
        if not _host.is_prepared(host):
            raise LabError(f"{host.machine} has no root to keep; run rackserve lab up --name {host.lab}")
        below = _host.prepared_layers(host)
        _host.power_off(host)
        _host.discard(host)
        building = folder.with_name(f".building-{name}")
        remove_tree(building)
        building.mkdir(mode=0o700)
        (host.folder / "upper").rename(building / "layer")
        made = Snapshot(name, host.debian_release, (folder / "layer", *below))
        layers = [str(layer) for layer in made.layers]
        write_json(building / "snapshot.json", {"name": name, "debian_release": host.debian_release, "layers": layers})
        building.rename(folder)
    return made


def remove(name: str) -> None:
    """Remove a snapshot that no host and no other snapshot lies on."""
    with locked(snapshots_dir()):
        layer = load_snapshot(name).layers[0]
        users = [f"snapshot {found.name}" for found in load_snapshots() if layer in found.layers[1:]]
        users += [
            f"host {path.parent.name} of lab {path.parents[2].name}"
            for path in labs_dir().glob("*/hosts/*/prepared")
            if str(layer) in path.read_text().splitlines()
        ]
        if users:
            raise LabError(f"snapshot {name} is in use by {', '.join(sorted(users))}; reset or remove that first")
        remove_tree(_folder(name))


def _folder(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise InputError(f"snapshot {name!r}: use lower-case letters, digits, dots and dashes, 40 at most")
    return snapshots_dir() / name
