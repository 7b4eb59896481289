"""What differs on a host from its record."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ._difference import Difference, changed, gone, iso, new
from ._patterns import matches
from ._tree import tree_differences
from ._unit_differences import unit_differences
from ._units import is_active

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._files import Entry
    from ._host import Host

_NAMED = {"attributes": "attributes beside the mode", "content": "content"}


def differences(
    host: Host, recorded: dict[str, Any], found: dict[str, Any], strangers: dict[str, Entry]
) -> list[Difference]:
    """Return the differences, each once.

    Args:
        host: the host.
        recorded: the roles of the record.
        found: the roles as `read_roles` returns them; a kind that could not be read is not compared.
        strangers: what lies in folders of ours and is nobody's.
    """
    every: list[Difference] = []
    for role, before in recorded.items():
        every += _role(host, role, before, found[role]["state"])
    for path, entry in strangers.items():
        every.append(_stranger(path, entry))
    told = {one.what for one in every if one.kind == "unowned"}
    # A folder that is gone, new or something else tells of all that was or is below.
    whole = {one.what for one in every if one.attribute in ("presence", "type") and one.what.startswith("/")}
    kept: dict[tuple[str, str], Difference] = {}
    for one in every:
        parents = {str(parent) for parent in PurePosixPath(one.what).parents}
        if not parents & whole and (one.kind == "unowned" or one.what not in told):
            kept.setdefault((one.what, one.attribute), one)
    return list(kept.values())


def record_differs(host: Host, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether a new record says anything else than the one before: what no comparison tells is no change.

    Args:
        host: the host.
        before: the roles of the record before; none on the first time.
        now: those of the new one.
    """
    if {role: before[role]["owned"] for role in before} != {role: now[role]["owned"] for role in now}:
        return True
    return bool(differences(host, before, now, {}))


def _role(host: Host, role: str, before: dict[str, Any], now: dict[str, Any]) -> Iterator[Difference]:
    state = before["state"]
    passing = before["owned"].get("changing", [])
    files = list(_files(state.get("file", {}), now["file"], role, passing)) if "file" in now else []
    yield from files
    for top, tree in state.get("tree", {}).items():
        yield from tree_differences(top, tree, now.get("tree", {}).get(top, {}), role)
    if "unit" in now:
        yield from unit_differences(state.get("unit", {}), now["unit"], role, {one.what for one in files})
    for kind, compare in (("package", _packages), ("user", _users), ("kernel", _kernel)):
        if kind in now:
            yield from compare(state.get(kind, {}), now[kind], role)
    if "socket" in now:
        yield from _sockets(host, state.get("socket", {}), now["socket"], role)
    if "firewall" in now:
        yield from _tables(host, before["owned"]["tables"], state.get("firewall", {}), now["firewall"], role)


def _stranger(path: str, entry: Entry) -> Difference:
    text = f"{path} ({entry['type']} of {entry['owner']}) is nobody's, in a folder that rackserve owns alone"
    return new("unowned", path, entry["type"], text, since=iso(entry.get("_changed")))


def _pairs(before: Entry, now: Entry) -> Iterator[tuple[str, str, str]]:
    """Yield attribute, recorded and found value of what differs; keys that begin with `_` are not compared."""
    for key in sorted({*before, *now}):
        if not key.startswith("_") and before.get(key) != now.get(key):
            yield key, str(before.get(key, "")), str(now.get(key, ""))


def _files(before: dict[str, Entry], now: dict[str, Entry], role: str, passing: list[str]) -> Iterator[Difference]:
    """Yield what differs of files; one whose content changes by itself may also come and go."""
    for path in sorted({*before, *now}):
        old, new_ = before.get(path), now.get(path)
        if (old is None or new_ is None) and (old or new_ or {}).get("type") == "file" and matches(path, passing):
            continue
        if new_ is None and old is not None:
            yield gone("file", path, old["type"], f"{path} is gone", role=role)
        elif old is None and new_ is not None:
            since = iso(new_.get("_changed"))
            text = f"{path} ({new_['type']}) is new since the last complete run"
            yield new("file", path, new_["type"], text, role=role, since=since)
        elif old is not None and new_ is not None:
            yield from _entry(path, old, new_, role)


def _entry(path: str, old: Entry, now: Entry, role: str) -> Iterator[Difference]:
    since = iso(now.get("_changed"))
    if old["type"] != now["type"]:
        target = f" to {now['target']}" if now["type"] == "link" else ""
        text = f"{path} is a {now['type']}{target}, recorded a {old['type']}"
        yield changed("file", path, "type", (old["type"], now["type"]), role=role, since=since, text=text)
        return
    for key, recorded, found in _pairs(old, now):
        if key == "content":
            pair, text = ("as recorded", "another"), f"the content of {path} differs from the recorded one"
        elif key == "attributes":
            # Of capabilities and access lists only their digests are known.
            pair = (_bare(recorded) or "none", _bare(found) or "none")
            text = f"{path} has the attributes: {pair[1]}; recorded: {pair[0]}"
            text += "" if pair[0] != pair[1] else ", of another value"
        else:
            pair, text = (recorded, found), f"{key} of {path} is {found}, recorded {recorded}"
        yield changed("file", path, key, pair, role=role, since=since, text=text)


def _bare(attributes: str) -> str:
    return re.sub(r" [0-9a-f]{12}(?=,|$)", "", attributes)


def _packages(before: dict[str, Entry], now: dict[str, Entry], role: str) -> Iterator[Difference]:
    for name in sorted({*before, *now}):
        old, found = before.get(name, {}), now.get(name, {})
        if name.startswith("/"):
            if found and old != found:
                text = f"{name}, a file of an installed package, is {found['file of a package']}"
                yield changed(
                    "package", name, "file of a package", ("intact", found["file of a package"]), role=role, text=text
                )
        elif not found:
            yield gone("package", name, old["version"], f"package {name} {old['version']} was removed", role=role)
        elif not old:
            yield new("package", name, found["version"], f"package {name} {found['version']} is new", role=role)
        else:
            for key, recorded, value in _pairs(old, found):
                text = f"{key} of package {name} is {value}, recorded {recorded}"
                if key == "hold":
                    text = f"package {name} is {value}, recorded {recorded}"
                yield changed("package", name, key, (recorded, value), role=role, text=text)


def _users(before: dict[str, Entry], now: dict[str, Entry], role: str) -> Iterator[Difference]:
    yield from _plain("user", before, now, role)


def _kernel(before: dict[str, Entry], now: dict[str, Entry], role: str) -> Iterator[Difference]:
    yield from _plain("kernel", before, now, role)


def _plain(kind: str, before: dict[str, Entry], now: dict[str, Entry], role: str) -> Iterator[Difference]:
    for name in sorted({*before, *now}):
        if name not in now:
            yield gone(kind, name, "present", f"{name} is gone", role=role)
        elif name not in before:
            yield new(kind, name, "present", f"{name} is new", role=role)
        else:
            for key, recorded, found in _pairs(before[name], now[name]):
                # The digest in brackets only tells two sets of keys apart.
                pair = (re.sub(r" \([0-9a-f]{12}\)", "", recorded), re.sub(r" \([0-9a-f]{12}\)", "", found))
                label = name if key == "value" else f"{key} of {name}"
                text = f"{label}: found {pair[1] or 'none'}, recorded {pair[0] or 'none'}"
                text += ", with other values" if pair[0] == pair[1] else ""
                yield changed(kind, name, key, pair, role=role, text=text)


def _sockets(host: Host, before: dict[str, Entry], now: dict[str, Entry], role: str) -> Iterator[Difference]:
    for address in sorted({*before, *now}):
        old, found = before.get(address), now.get(address)
        if found is None and old is not None:
            # systemd's own sockets come and go with their units; of a unit that ended, the unit tells.
            if old["process"] != "systemd" and old["unit"] and is_active(host, old["unit"]):
                yield gone(
                    "socket", address, old["process"], f"{old['process']} no longer listens on {address}", role=role
                )
        elif old is None and found is not None:
            where = f" in {found['unit']}" if found["unit"] else ""
            text = f"{found['process']}{where} listens on {address}, where nothing did"
            yield new("socket", address, found["process"], text, role=role)
        elif old is not None and found is not None and old != found:
            pair = (
                f"{old['process']} in {old['unit'] or 'no unit'}",
                f"{found['process']} in {found['unit'] or 'no unit'}",
            )
            text = f"{pair[1]} listens on {address}, recorded {pair[0]}"
            yield changed("socket", address, "process", pair, role=role, text=text)


def _tables(
    host: Host, owned: dict[str, str], before: dict[str, Entry], now: dict[str, Entry], role: str
) -> Iterator[Difference]:
    for name in sorted({*before, *now}):
        if name not in now:
            unit = _unit_of(name, owned)
            if not unit or is_active(host, unit):
                text = f"the firewall table {name} is gone" + (f" while {unit} is active" if unit else "")
                yield gone("firewall", name, "present", text, role=role)
        elif name not in before:
            yield new("firewall", name, "present", f"the firewall table {name} is new", role=role)
        elif before[name] != now[name]:
            old, found = (entry["rules"].split("\n") for entry in (before[name], now[name]))
            more, less = [one for one in found if one not in old], [one for one in old if one not in found]
            said = [*(f"has `{one}`" for one in more), *(f"lacks `{one}`" for one in less)]
            text = f"the firewall table {name} {', '.join(said) or 'has its rules in another order'}"
            yield changed("firewall", name, "rules", ("; ".join(less), "; ".join(more)), role=role, text=text)


def _unit_of(table: str, owned: dict[str, str]) -> str:
    """Return the unit that keeps a table; a `*` of the table's pattern is the same in the unit's."""
    for pattern, unit in owned.items():
        found = re.fullmatch(re.escape(pattern).replace(r"\*", "(.*)"), table)
        if found:
            return unit.replace("*", found[1]) if found.groups() else unit
    return ""
