"""Differences of units. What follows from a file that is reported already is not reported again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ._difference import Difference, changed, gone, iso, new

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._files import Entry

# Memory as a share of the host's differs by what a kernel keeps for itself.
_NEAR = 0.01
_RELOAD = "NeedDaemonReload"


def unit_differences(
    before: dict[str, Entry], now: dict[str, Entry], role: str, reported: set[str]
) -> Iterator[Difference]:
    """Yield the differences of the units of a role.

    Args:
        before: units and the files beside ours that change them, recorded.
        now: the same, found.
        role: which declared them.
        reported: files whose differences are reported.
    """
    concerned: set[str] = set()
    for path in sorted(path for path in {*before, *now} if path.startswith("/")):
        found = list(_file(path, before.get(path), now.get(path), role))
        if found:
            concerned |= {*before.get(path, {}).get("_units", ()), *now.get(path, {}).get("_units", ())}
        yield from found
    instances = {_parts(name)[1] for name in before} - {""}
    for name in sorted(name for name in {*before, *now} if not name.startswith("/")):
        old, present = before.get(name), now.get(name)
        follows = bool({name, _template(name)} & concerned or {*_files_of(old), *_files_of(present)} & reported)
        for one in _unit(name, old, present, role, instances):
            if not follows or one.attribute == "ActiveState":
                yield one


def _unit(name: str, old: Entry | None, found: Entry | None, role: str, instances: set[str]) -> Iterator[Difference]:
    if found is None and old is not None:
        state = old.get("UnitFileState", "loaded")
        yield gone("unit", name, state, f"systemd no longer knows {name}", role=role)
    elif old is None and found is not None:
        # systemd loads the units of an instance when they are needed.
        if _parts(name)[1] not in instances:
            state = found.get("UnitFileState") or "loaded"
            yield new("unit", name, state, f"the unit {name} is new ({state})", role=role)
    elif old is not None and found is not None:
        yield from _properties(name, old, found, role)


def _parts(name: str) -> tuple[str, str, str]:
    """Return prefix, instance and type of a unit's name; no instance where it is none of a template."""
    stem, _, kind = name.rpartition(".")
    prefix, _, instance = stem.partition("@")
    return prefix, instance, kind


def _template(name: str) -> str:
    prefix, instance, kind = _parts(name)
    return f"{prefix}@.{kind}" if instance else name


def _files_of(entry: Entry | None) -> list[str]:
    return [entry.get("FragmentPath", ""), *entry.get("DropInPaths", "").split()] if entry else []


def _file(path: str, old: Entry | None, found: Entry | None, role: str) -> Iterator[Difference]:
    name, folder = path.rpartition("/")[2], path.rpartition("/")[0]
    dropin = folder.endswith(".d")
    if found is None and old is not None:
        yield gone("unit", path, old["type"], f"{path} is gone", role=role)
    elif old is None and found is not None:
        since = iso(found.get("_changed"))
        if found.get("target") == "/dev/null":
            text = f"{path} masks {folder.rpartition('/')[2][:-2] + '/' + name if dropin else name}"
        elif dropin:
            text = f"{path} is a drop-in that is not rackserve's"
        else:
            text = f"{path} is a unit file that was not there"
        yield new("unit", path, found["type"], text, role=role, since=since)
    elif old is not None and found is not None:
        differs = sorted(key for key in {*old, *found} if key[0] != "_" and old.get(key) != found.get(key))
        if differs:
            text = f"{' and '.join(differs)} of {path} differs from the recorded one"
            yield changed(
                "unit",
                path,
                differs[0],
                ("as recorded", "another"),
                role=role,
                text=text,
                since=iso(found.get("_changed")),
            )


def _properties(name: str, old: Entry, found: Entry, role: str) -> Iterator[Difference]:
    if found.get(_RELOAD) == "yes":
        text = f"systemd has not loaded the files of {name} as they are now; a restart would run the old ones"
        yield changed("unit", name, _RELOAD, ("no", "yes"), role=role, text=text)
    for key in sorted({*old, *found} - {_RELOAD}):
        recorded, value = old.get(key, ""), found.get(key, "")
        if recorded == value or key.startswith("_") or (key == "MemoryMax" and _near(recorded, value)):
            continue
        if key == "ActiveState" and not (recorded and value):
            continue  # between two states
        pair, text = (recorded, value), f"{key} of {name} is {value or 'empty'}, recorded {recorded or 'empty'}"
        if key == "Environment":
            names = sorted(_names(recorded) ^ _names(value)) or ["the same names with other values"]
            pair, text = ("as recorded", "another"), f"the environment of {name} differs: {', '.join(names)}"
        elif key in ("ActiveState", "UnitFileState"):
            text = f"{name} is {value or 'in no state'}, recorded {recorded or 'in no state'}"
        yield changed("unit", name, key, pair, role=role, text=text)


def _names(environment: str) -> set[str]:
    return set(re.findall(r"(?:^|\s)\"?([A-Za-z_]\w*)=", environment))


def _near(one: str, other: str) -> bool:
    if not (one.isdigit() and other.isdigit()):
        return False
    return abs(int(one) - int(other)) <= _NEAR * max(int(one), int(other))
