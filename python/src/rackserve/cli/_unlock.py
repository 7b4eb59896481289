"""`rackserve unlock`: breaks the lock that a dead run left on hosts, and records who broke whose, and why."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rackserve import history
from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_inventory, add_json
from rackserve.cli._progress import shown
from rackserve.errors import InputError
from rackserve.run import break_locks, failure_messages, load_fleet, read_locks, resolve_inventory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="a host of the inventory")
    parser.add_argument("--all", action="store_true", help="every host")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why that run is dead; it is recorded")
    add_inventory(parser)
    add_json(parser, "the result")
    parser.set_defaults(handler=unlock)


def unlock(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        InputError: an unknown host, an empty reason, or a run that is not dead.
    """
    if bool(args.hosts) == args.all:
        raise InputError("name hosts, or give --all for every host")
    inventory = resolve_inventory(args.inventory)
    fleet = load_fleet(inventory)
    unknown = [name for name in args.hosts if name not in fleet.names]
    if unknown:
        raise InputError(f"{', '.join(unknown)}: not in the inventory {inventory}, which has {', '.join(fleet.names)}")
    if not args.reason.strip():
        raise InputError("--reason is empty; say why the run that holds the lock is dead")
    with shown() as on_event:
        result, found = read_locks(inventory, ",".join(args.hosts) or None, on_event=on_event)
        locked = {host: one for host, one in found.items() if one.get("holder")}
        _refuse_running(locked)
        runs = sorted({str(one["holder"]["run"]) for one in locked.values()})
        messages = failure_messages(result, fleet)
        if locked:
            broken = break_locks(inventory, list(locked), runs, args.reason.strip(), on_event=on_event)
            messages += failure_messages(broken, fleet)
    holders = {host: history.describe(one["holder"]) for host, one in locked.items()}
    if args.json:
        print(json.dumps({"ok": not messages, "unlocked": {} if messages else holders, "messages": messages}, indent=2))
    elif not locked and not messages:
        print("no host is locked")
    elif not messages:
        for host, holder in holders.items():
            print(f"{host}: unlocked; it was locked by {holder}")
    for message in messages:
        print(message, file=sys.stderr)
    return EXIT_CHECK_FAILED if messages else EXIT_OK


def _refuse_running(locked: Mapping[str, Mapping[str, Any]]) -> None:
    running = {host: {"refused": one} for host, one in locked.items() if one.get("known") == "running"}
    if running:
        raise InputError(f"the lock of a run that is alive is not broken: {history.refusals(running)}, or end it")
