"""Runs of a whole site: site.yml, and the playbooks of its edges, under the site's run lock and with a record."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from rackserve._paths import project_root
from rackserve.errors import InputError
from rackserve.run import _ansible
from rackserve.run._events import unreachable_message
from rackserve.run._fleet import load_fleet, resolve_inventory
from rackserve.run._record import new_record_dir, run_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rackserve.run._events import RunEvent, RunResult
    from rackserve.run._fleet import Fleet


def run_site(
    directory: str | None,
    limit: str | None,
    *,
    check: bool,
    on_event: Callable[[RunEvent], None],
    variables: Mapping[str, object] | None = None,
    playbook_name: str = "site.yml",
) -> tuple[RunResult, Fleet]:
    """Run site.yml, or another playbook of the whole site, with a record; a run that changes hosts has the site's lock.

    Args:
        directory: the inventory, or None for the lab's.
        limit: Ansible's host pattern.
        check: change nothing.
        on_event: called for every event.
        variables: as for `run_playbook`.
        playbook_name: its path in the project.

    Raises:
        InputError: when no host was in any play.
    """
    inventory = resolve_inventory(directory)
    fleet = load_fleet(inventory)
    playbook = project_root() / playbook_name
    if not playbook.is_file():
        raise InputError(f"there is no {playbook}; run from a checkout, or set RACKSERVE_PROJECT to one")
    with contextlib.nullcontext() if check else run_lock(inventory):
        result = _ansible.run_playbook(
            playbook,
            inventory,
            on_event=on_event,
            record_dir=new_record_dir(playbook),
            limit=limit,
            check=check,
            variables=variables,
        )
    if not result.hosts:
        raise InputError(f"no host of {inventory} was in any play; see --limit and the groups in hosts.yml")
    return result, fleet


def run_edges(
    directory: str | None,
    playbook_name: str,
    variables: Mapping[str, object],
    *,
    on_event: Callable[[RunEvent], None],
    tags: Sequence[str] = (),
) -> tuple[RunResult, list[str]]:
    """Run a playbook of the edges under the site's run lock, with a record; return its failures too.

    Raises:
        InputError: when the site has no edge.
    """
    inventory = resolve_inventory(directory)
    fleet = load_fleet(inventory)
    playbook = project_root() / "playbooks" / playbook_name
    with run_lock(inventory):
        result = _ansible.run_playbook(
            playbook,
            inventory,
            on_event=on_event,
            record_dir=new_record_dir(playbook),
            tags=tags,
            variables=variables,
        )
    if not result.hosts:
        raise InputError(f"no host of {inventory} is in the group edge_hosts; see its hosts.yml")
    return result, failure_messages(result, fleet)


def inspect_fleet(
    inventory: Path, tags: Sequence[str], *, on_event: Callable[[RunEvent], None], limit: str | None = None
) -> RunResult:
    """Run playbooks/verify_fleet.yml, which changes nothing, so without the run lock; arguments as of `run_playbook`.

    Its tags, those of the role `verify`, select the checks: verify, status, report or diagnose.
    """
    playbook = project_root() / "playbooks" / "verify_fleet.yml"
    return _ansible.run_playbook(
        playbook, inventory, on_event=on_event, record_dir=new_record_dir(playbook), limit=limit, tags=tags
    )


def collect_from_fleet(
    fleet: Fleet, tag: str, key: str, *, on_event: Callable[[RunEvent], None], limit: str | None = None
) -> tuple[RunResult, dict[str, dict[str, Any]], dict[str, str]]:
    """Run `inspect_fleet` by one tag; return its result, what hosts gave, and why others gave nothing, by host.

    Args:
        fleet: the site's hosts.
        tag: of the role `verify`.
        key: of the task's result that has what a host gives, a mapping.
        on_event: called for every event.
        limit: Ansible's host pattern.

    Raises:
        InputError: when no host was in the run.
    """
    found: dict[str, dict[str, Any]] = {}

    def take(event: RunEvent) -> None:
        given = event.data.get(key)
        if isinstance(given, dict):
            found[event.host] = given
        on_event(event)

    result = inspect_fleet(fleet.inventory, [tag], on_event=take, limit=limit)
    if not result.hosts:
        raise InputError(f"no host of {fleet.inventory} was checked; see --limit and hosts.yml")
    missing = {failure.host: unreachable_message(failure) for failure in result.unreachable}
    return result, found, missing | {failure.host: failure.message for failure in result.failures}


def failure_messages(result: RunResult, fleet: Fleet) -> list[str]:
    """Return one message for each host that failed or could not be reached."""
    by_host: dict[str, str] = {}
    for failure in result.failures:
        by_host.setdefault(failure.host, f"{failure.host}: {failure.task}: {failure.message}")
    for failure in result.unreachable:
        by_host[failure.host] = unreachable_message(failure, fleet.address_of(failure.host))
    return list(by_host.values())
