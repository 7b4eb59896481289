"""Units of systemd: what is loaded, which files it is made of, whether they run."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ._files import Entry, read_entry
from ._patterns import matches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._host import Host

# systemd.unit(5), the first one counts most; below the last come the files of packages.
FOLDERS = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
STATES = ("LoadState", "UnitFileState", "FragmentPath", "DropInPaths", "NeedDaemonReload")
_LOADED = """
    AmbientCapabilities BindPaths BindReadOnlyPaths CapabilityBoundingSet DeviceAllow DevicePolicy DynamicUser
    Environment EnvironmentFiles ExecReload ExecStart ExecStartPost ExecStartPre ExecStop ExecStopPost Group
    IPAddressAllow IPAddressDeny KillMode LimitNOFILE Listen LoadCredential MemoryMax NoNewPrivileges PrivateDevices
    PrivateNetwork PrivateTmp ProtectHome ProtectSystem ReadWritePaths Restart RestartUSec RootDirectory
    StandardError StandardOutput SupplementaryGroups SystemCallFilter TimeoutStopUSec TimersCalendar TimersMonotonic
    UMask User WorkingDirectory
"""
LOADED = tuple(_LOADED.split())
# What a running unit adds to a setting: when a command was last started, when a timer elapses next.
_RUNNING = re.compile(r" ; (start_time|next_elapse)=.*?(?= \}|$)")
_ACTIVE = "ActiveState"
_STEADY = ("active", "inactive", "failed")


def names(host: Host, patterns: list[str]) -> dict[str, str]:
    """Return the units that patterns stand for, with the state of their files; templates too."""
    if not patterns:
        return {}
    asked = ("--all", "--plain", "--no-legend", "--no-pager")
    loaded = host.run("systemctl", "list-units", *asked, *patterns)
    found = dict.fromkeys((line.split()[0] for line in loaded.splitlines()), "")
    # All of them: with patterns that match no file systemctl fails.
    for line in host.run("systemctl", "list-unit-files", *asked).splitlines():
        name, state = line.split()[:2]
        found[name] = state
    return {name: state for name, state in found.items() if any(fnmatchcase(name, one) for one in patterns)}


def shown(host: Host, units: list[str]) -> dict[str, dict[str, str]]:
    """Return what systemd has loaded of units, by unit and property; a unit that it does not know is left out."""
    if not units:
        return {}
    asked = ",".join(("Id", _ACTIVE, *STATES, *LOADED))
    found = {}
    for block in host.run("systemctl", "show", "--no-pager", f"--property={asked}", *units).split("\n\n"):
        properties: dict[str, str] = {}
        for line in block.splitlines():
            key, _, value = line.partition("=")
            value = _RUNNING.sub("", value)
            properties[key] = f"{properties[key]}\n{value}" if key in properties else value
        if properties.get("Id") and properties.get("LoadState") != "not-found":
            found[properties["Id"]] = properties
    return found


def read_units(host: Host, owned: dict[str, Any], files: list[str], recorded: list[str]) -> dict[str, Entry]:
    """Return the units of a declaration, and the files beside ours that change them, by their paths.

    Args:
        host: the host.
        owned: the declaration.
        files: patterns of the files that are compared by content anyway.
        recorded: units that a record has, which systemd may have unloaded since.
    """
    listed = names(host, owned["units"])
    units = sorted({*listed, *(name for name in recorded if not name.startswith("/"))})
    found: dict[str, Entry] = {}
    for name, properties in shown(host, [name for name in units if "@." not in name]).items():
        entry: Entry = {key: properties.get(key, "") for key in (*STATES, *LOADED) if properties.get(key)}
        entry["NeedDaemonReload"] = properties.get("NeedDaemonReload", "no")
        state = properties.get(_ACTIVE, "")
        if state in _STEADY and any(fnmatchcase(name, one) for one in owned["running"]):
            entry[_ACTIVE] = state
        found[name] = entry
    for name in units:
        if "@." in name and listed.get(name):
            found[name] = {"UnitFileState": listed[name]}
        for path in _files_of(host, name):
            entry_there = None if matches(path, files) else read_entry(host, path)
            if entry_there is not None:
                entry_there["_units"] = [*found.get(path, {}).get("_units", []), name]
                found[path] = entry_there
    return found


def _files_of(host: Host, unit: str) -> Iterator[str]:
    """Yield the files that a unit may be made of, in every folder that systemd reads: itself, and its drop-ins."""
    stem, _, kind = unit.rpartition(".")
    whole = [unit]
    if "@" in stem and not stem.endswith("@"):
        whole.append(f"{stem.split('@')[0]}@.{kind}")
    dashes = [f"{stem[: place + 1]}.{kind}" for place, letter in enumerate(stem) if letter == "-" and "@" not in stem]
    for folder in FOLDERS:
        for name in whole:
            yield f"{folder}/{name}"
        for name in [*whole, *dashes, kind]:
            dropins = f"{folder}/{name}.d"
            yield from (f"{dropins}/{one}" for one in host.names(dropins) if one.endswith(".conf"))


def is_active(host: Host, unit: str) -> bool:
    """Return whether a unit is active."""
    return shown(host, [unit]).get(unit, {}).get(_ACTIVE) == "active"
