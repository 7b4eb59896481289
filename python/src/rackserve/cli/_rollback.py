"""`rackserve rollback`: returns hosts to the generation before, drained and in the order of a rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.cli import EXIT_OK
from rackserve.cli._generation_before import roll_back
from rackserve.cli._options import add_confirmation, add_inventory, add_json, confirmed
from rackserve.errors import InputError
from rackserve.run import load_fleet, resolve_inventory

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="the hosts to return (default: every vLLM host)")
    add_inventory(parser)
    add_json(parser, "the result")
    add_confirmation(parser)
    parser.set_defaults(handler=rollback)


def rollback(args: argparse.Namespace) -> int:
    """Run the command."""
    inventory = resolve_inventory(args.inventory)
    known = [host.name for host in load_fleet(inventory).hosts if "vllm_hosts" in host.groups]
    if unknown := [name for name in args.hosts if name not in known]:
        raise InputError(f"{', '.join(unknown)}: no vLLM host of {inventory}; there are {', '.join(known)}")
    hosts = list(dict.fromkeys(args.hosts)) or known
    if not confirmed(args, f"Return {', '.join(hosts)} to the generation before?"):
        return EXIT_OK
    return roll_back(args, hosts, {})
