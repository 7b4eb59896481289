"""The record: what the last complete run left on a host, by role."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from ._carry import carry
from ._files import read_files, read_tree, unowned
from ._host import UnreadError
from ._patterns import expand
from ._system import read_kernel, read_packages, read_sockets, read_tables, read_users
from ._units import read_units

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._host import Host

RECORD = "/var/lib/rackserve/record.json"
FORMAT = 1
# Of a declaration: its keys, with what one that says nothing has.
EMPTY: dict[str, Any] = {
    **{key: [] for key in ("files", "folders", "trees", "changing", "units", "running", "packages", "users")},
    **{key: [] for key in ("groups", "ports", "facts", "sysctls")},
    "tables": {},
}
State = dict[str, dict[str, Any]]


class RecordError(Exception):
    """There is no record to compare with; the message says what to do."""


def complete(owned: dict[str, Any]) -> dict[str, Any]:
    """Return a declaration with every key."""
    return {**EMPTY, **owned}


def read_state(host: Host, owned: dict[str, Any], files: list[str], recorded: State) -> tuple[State, dict[str, str]]:
    """Return what a host has of one declaration, and why kinds could not be read.

    Args:
        host: the host.
        owned: the declaration, complete.
        files: patterns of the files of every role.
        recorded: the state of an earlier record; empty without one.
    """
    readers: dict[str, Callable[[], dict[str, Any]]] = {
        "file": lambda: read_files(host, owned),
        "tree": lambda: {top: read_tree(host, top) for one in owned["trees"] for top in expand(host, one, [])},
        "unit": lambda: read_units(host, owned, files, list(recorded.get("unit", {}))),
        "package": lambda: read_packages(host, owned["packages"], files),
        "user": lambda: read_users(host, owned),
        "socket": lambda: read_sockets(host, owned["ports"], owned["units"]),
        "firewall": lambda: read_tables(host, list(owned["tables"])),
        "kernel": lambda: read_kernel(host, owned["facts"], owned["sysctls"]),
    }
    state: State = {}
    unread: dict[str, str] = {}
    for kind, reader in readers.items():
        found, reason = _tried(reader)
        if reason:
            unread[kind] = reason
        else:
            state[kind] = found
    return state, unread


def _tried(reader: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], str]:
    try:
        return reader(), ""
    except UnreadError as failed:
        return {}, str(failed)


def read_roles(
    host: Host, declared: dict[str, dict[str, Any]], recorded: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return declaration and state by role, and why kinds could not be read.

    Args:
        host: the host.
        declared: the declarations by role.
        recorded: the roles of an earlier record.
    """
    whole = {role: complete(owned) for role, owned in declared.items()}
    files = [pattern for owned in whole.values() for pattern in owned["files"]]
    roles, unread = {}, {}
    for role, owned in whole.items():
        state, failed = read_state(host, owned, files, recorded.get(role, {}).get("state", {}))
        roles[role] = {"owned": owned, "state": state}
        unread.update(failed)
    return roles, unread


def read_unowned(host: Host, roles: dict[str, Any]) -> dict[str, Any]:
    """Return what lies in the folders that are ours alone and is nobody's."""
    return unowned(host, [role["owned"] for role in roles.values()])


def load(host: Host, path: str = RECORD) -> dict[str, Any]:
    """Return the record of a host.

    Raises:
        RecordError: there is none, or it cannot be read.
    """
    try:
        with open(host.at(path), encoding="utf-8") as source:
            record = json.load(source)
        if record["format"] == FORMAT and isinstance(record["roles"], dict):
            return dict(record)
        raise RecordError(f"{path} has the format {record['format']}, not {FORMAT}; run rackserve apply")
    except FileNotFoundError:
        raise RecordError(f"{path} is missing: no run of site.yml was completed here; run rackserve apply") from None
    except (OSError, ValueError, KeyError, TypeError) as failed:
        raise RecordError(f"{path} cannot be read ({failed}); run rackserve apply") from failed


def save(host: Host, record: dict[str, Any], path: str = RECORD) -> None:
    """Replace the record, which only root reads: durable, by one rename."""
    where = host.at(path)
    os.makedirs(os.path.dirname(where), mode=0o755, exist_ok=True)
    draft = f"{where}.new"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as target:
        os.fchmod(target.fileno(), 0o600)
        json.dump(record, target, sort_keys=True)
        target.flush()
        os.fsync(target.fileno())
    os.replace(draft, where)


def new_record(
    host: Host,
    declared: dict[str, dict[str, Any]],
    *,
    now: str,
    only: list[str],
    before: dict[str, Any],
    path: str = RECORD,
) -> dict[str, Any]:
    """Return what to record.

    Args:
        host: the host.
        declared: the declarations by role.
        now: the time, ISO 8601.
        only: roles whose part is replaced in the record that there is; empty for a whole new one.
        before: what `check` returned before the run: what differed then and is the same now is no work of the run, and
            remains a difference. Empty takes the host as it is.
        path: of the record.

    Raises:
        RecordError: `only` names roles, or `before` differences, and there is no record.
        UnreadError: a part of the host cannot be read.
    """
    known: dict[str, Any] = {"roles": {}, "written": now}
    if only or before.get("differences"):
        known = load(host, path)
    chosen = {role: owned for role, owned in declared.items() if not only or role in only}
    roles, unread = read_roles(host, chosen, {})
    if unread:
        raise UnreadError("; ".join(sorted(set(unread.values()))))
    carry(known["roles"], roles, before.get("differences", []), before.get("prints", {}))
    kept = known["roles"] if only else {}
    return {"format": FORMAT, "written": known["written"] if only else now, "roles": {**kept, **roles}}
