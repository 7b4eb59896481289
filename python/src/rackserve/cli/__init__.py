"""The `rackserve` command: progress on stderr, result on stdout, exit 0 ok, 1 a check failed, 2 could not check."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rackserve import __version__
from rackserve.errors import InputError, RackserveError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_OK: Final = 0
EXIT_CHECK_FAILED: Final = 1
EXIT_CANNOT_CHECK: Final = 2


class Command(NamedTuple):
    """A command as `rackserve --help` lists it; its module is imported only when it is the one that runs."""

    name: str
    help: str
    module: str
    add_options: str = "add_options"


COMMANDS: Final = (
    Command("lab", "the built-in hosts: systemd containers on a network without a way out", "_lab"),
    Command("bundle", "carry everything that a site's hosts need", "_bundle"),
    Command("init", "write a commented inventory for a new site", "_init"),
    Command("capacity", "tokens and requests that a model holds", "_capacity"),
    Command("key", "make keys for the edge's clients", "_key"),
    Command("ca", "keep an offline certificate authority", "_ca"),
    Command("plan", "say what `apply` would change", "_plan"),
    Command("apply", "bring a site to its declared state", "_apply"),
    Command("rollout", "change a site host by host while it serves", "_rollout"),
    Command("rollback", "return hosts to the generation before", "_rollback"),
    Command("retire", "take hosts out of a site", "_retire"),
    Command("verify", "check every layer of a site", "_verify"),
    Command("status", "show the fleet's instances and their load", "_status"),
    Command("drift", "show what differs from what the last run left", "_drift"),
    Command("drain", "send instances no new requests", "_drain"),
    Command("undrain", "send them requests again", "_drain", "add_undrain_options"),
    Command("history", "say who changed what, and when", "_history"),
    Command("unlock", "break the lock that a dead run left on hosts", "_unlock"),
    Command("doctor", "say what is wrong with a fleet and what to do", "_doctor"),
    Command("bench", "measure what clients of a site get", "_bench"),
    Command("report", "write one page about a site, for a hand-over", "_report"),
)


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser that lists every command, and knows the options of the one that is called.

    Args:
        words: the command line. No option before the command takes a value, so its first other word is the command.
    """
    parser = argparse.ArgumentParser(prog="rackserve", description=__doc__)
    parser.add_argument("--version", action="version", version=f"rackserve {__version__}")
    parser.add_argument("--debug", action="store_true", help="log what rackserve runs, to stderr")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    called = next((word for word in words if not word.startswith("-")), None)
    for command in COMMANDS:
        own = commands.add_parser(command.name, help=command.help)
        if command.name == called:
            module = importlib.import_module(f"rackserve.cli.{command.module}")
            own.description = module.__doc__
            getattr(module, command.add_options)(own)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    args = build_parser(words).parse_args(words)
    logging.basicConfig(level=logging.DEBUG if args.debug else logging.WARNING, stream=sys.stderr)
    try:
        _check_working_directory()
        code: int = args.handler(args)
    except RackserveError as error:
        print(f"rackserve: {error}", file=sys.stderr)
        return EXIT_CANNOT_CHECK
    except KeyboardInterrupt:
        print("rackserve: interrupted; run the same command again to go on", file=sys.stderr)
        return EXIT_CANNOT_CHECK
    return code


def _check_working_directory() -> None:
    try:
        Path.cwd()
    except FileNotFoundError as gone:
        where = os.environ.get("PWD", "of this shell")
        raise InputError(
            f"the working directory {where} was removed; cd to an existing one, and run it again"
        ) from gone


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
