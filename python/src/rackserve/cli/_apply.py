"""`rackserve apply`: runs site.yml on a site, under the site's run lock."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rackserve import _runner
from rackserve._fleet import load_fleet, resolve_inventory
from rackserve._paths import project_root
from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._progress import Progress, format_table
from rackserve.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from rackserve._fleet import Fleet
    from rackserve._runner import RunEvent, RunResult


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("apply", help="bring a site to its declared state", description=__doc__)
    parser.add_argument("-i", "--inventory", metavar="DIR", help="the site's inventory (default: the lab's)")
    parser.add_argument("--limit", metavar="PATTERN", help="only these hosts")
    parser.add_argument("--check", action="store_true", help="change nothing; show what would change")
    parser.add_argument(
        "--allow-downgrade", metavar="REASON", help="install a bundle older than one installed before; it is recorded"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(handler=apply)


def apply(args: argparse.Namespace) -> int:
    """Run the command."""
    variables = {"stack_downgrade_reason": args.allow_downgrade} if args.allow_downgrade else None
    result, fleet = run_site(args.inventory, args.limit, check=args.check, variables=variables)
    messages = failure_messages(result, fleet)
    if args.json:
        print(json.dumps(_as_json(result, messages), indent=2))
    else:
        print(_table(result))
        for message in messages:
            print(message, file=sys.stderr)
        print(f"record: {result.record_dir}", file=sys.stderr)
    return EXIT_OK if result.ok else EXIT_CHECK_FAILED


def run_site(
    given: str | None,
    limit: str | None,
    *,
    check: bool,
    variables: Mapping[str, object] | None = None,
    on_event: Callable[[RunEvent], None] = lambda _event: None,
) -> tuple[RunResult, Fleet]:
    """Run site.yml under the site's run lock, with progress and a record.

    Args:
        given: the inventory, or None for the lab's.
        limit: Ansible's host pattern.
        check: change nothing.
        variables: as for `run_playbook`.
        on_event: hears every event besides.

    Raises:
        InputError: when no host was in any play.
    """
    inventory = resolve_inventory(given)
    fleet = load_fleet(inventory)
    playbook = project_root() / "site.yml"
    if not playbook.is_file():
        raise InputError(f"there is no {playbook}; run from a checkout, or set RACKSERVE_PROJECT to one")
    with _runner.run_lock(inventory), Progress() as progress:

        def take(event: RunEvent) -> None:
            on_event(event)
            progress.take(event)

        result = _runner.run_playbook(
            playbook,
            inventory,
            on_event=take,
            record_dir=_runner.new_record_dir(playbook),
            limit=limit,
            check=check,
            variables=variables,
        )
    if not result.hosts:
        raise InputError(f"no host of {inventory} was in any play; look at --limit and the groups in hosts.yml")
    return result, fleet


def run_edges(
    given: str | None, playbook_name: str, variables: Mapping[str, object], tags: Sequence[str] = ()
) -> tuple[RunResult, list[str]]:
    """Run a playbook of the edges under the site's run lock, with progress and a record; return its failures too.

    Raises:
        InputError: when the site has no edge.
    """
    inventory = resolve_inventory(given)
    fleet = load_fleet(inventory)
    playbook = project_root() / "playbooks" / playbook_name
    with _runner.run_lock(inventory), Progress() as progress:
        result = _runner.run_playbook(
            playbook,
            inventory,
            on_event=progress.take,
            record_dir=_runner.new_record_dir(playbook),
            tags=tags,
            variables=variables,
        )
    if not result.hosts:
        raise InputError(f"no host of {inventory} is in the group edge_hosts; see its hosts.yml")
    return result, failure_messages(result, fleet)


def failure_messages(result: RunResult, fleet: Fleet) -> list[str]:
    """Return one message for each host that failed or could not be reached."""
    by_host: dict[str, str] = {}
    for failure in result.failures:
        by_host.setdefault(failure.host, f"{failure.host}: {failure.task}: {failure.message}")
    for failure in result.unreachable:
        by_host[failure.host] = _runner.unreachable_message(failure, fleet.address_of(failure.host))
    return list(by_host.values())


def _table(result: RunResult) -> str:
    head = ("HOST", "OK", "CHANGED", "FAILED", "UNREACHABLE", "SKIPPED")
    return format_table(
        head,
        [
            (host.name, *(str(n) for n in (host.ok, host.changed, host.failed, host.unreachable, host.skipped)))
            for host in result.hosts
        ],
    )


def _as_json(result: RunResult, messages: list[str]) -> dict[str, object]:
    return {
        "ok": result.ok,
        "hosts": [asdict(host) for host in result.hosts],
        "failures": [asdict(failure) for failure in result.failures],
        "unreachable": [asdict(failure) for failure in result.unreachable],
        "messages": messages,
        "record": str(result.record_dir),
    }
