"""`rackserve drain` and `undrain`: takes instances out of every edge's rotation and back, without breaking a stream."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_inventory, add_json
from rackserve.cli._progress import shown
from rackserve.run import run_edges

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `drain` takes."""
    _add_common(parser)
    parser.add_argument("--force", action="store_true", help="drain even the last instance of a model")


def add_undrain_options(parser: argparse.ArgumentParser) -> None:
    """Add what `undrain` takes."""
    _add_common(parser)
    parser.add_argument("--force", action="store_true", help="take back also what a rollout keeps out of rotation")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="HOST|HOST:INSTANCE", help="a whole host, or one instance")
    add_inventory(parser)
    add_json(parser, "the result")
    parser.set_defaults(handler=rotate)


def rotate(args: argparse.Namespace) -> int:
    """Run either command: one part of the edges' role, with the changes as variables."""
    variables = {f"nginx_{args.command}": args.names, "nginx_drain_force": args.force}
    tags = ["nginx_rotate"]
    with shown() as on_event:
        result, messages = run_edges(args.inventory, "configure_edge.yml", variables, on_event=on_event, tags=tags)
    edges = [host.name for host in result.hosts]
    if args.json:
        found = {"ok": result.ok, "hosts": [asdict(host) for host in result.hosts], "messages": messages}
        print(json.dumps(found, indent=2))
    elif result.ok:
        done = "out of rotation, and their streams have ended" if args.command == "drain" else "in rotation again"
        print(f"{', '.join(args.names)}: {done} ({', '.join(edges)})")
    for message in messages:
        print(message, file=sys.stderr)
    return EXIT_OK if result.ok else EXIT_CHECK_FAILED
