"""`rackserve key`: keys of the edge's clients. A new one is shown once; what is kept is its hash."""

from __future__ import annotations

import getpass
import json
import sys
from typing import TYPE_CHECKING

from rackserve import edge
from rackserve.cli import EXIT_OK
from rackserve.cli._options import add_json
from rackserve.errors import InputError

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a key; print it once, and its hash for nginx_clients")
    add_json(new, "both")
    new.set_defaults(handler=make)
    known = actions.add_parser("hash", help="read a key (from stdin, or asked for) and print its hash")
    known.set_defaults(handler=show_hash)


def make(args: argparse.Namespace) -> int:
    """Run `key new`."""
    made = edge.new_key()
    if args.json:
        print(json.dumps(made._asdict(), indent=2))
        return EXIT_OK
    print("For the client, shown this once:", file=sys.stderr)
    print(made.key)
    print("For nginx_clients in the inventory, under the client's `keys`:", file=sys.stderr)
    print(f"- sha256: {made.sha256}")
    return EXIT_OK


def show_hash(args: argparse.Namespace) -> int:
    """Run `key hash`."""
    del args
    key = (getpass.getpass("Key: ") if sys.stdin.isatty() else sys.stdin.read()).strip()
    if not key:
        raise InputError("there is no key on stdin; pipe one in, or run it in a terminal")
    print(f"- sha256: {edge.hash_of(key)}")
    return EXIT_OK
