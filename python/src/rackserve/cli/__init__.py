"""The `rackserve` command: progress on stderr, result on stdout, exit 0 ok, 1 a check failed, 2 could not check."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rackserve import __version__
from rackserve.errors import InputError, RackserveError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_OK: Final = 0
EXIT_CHECK_FAILED: Final = 1
EXIT_CANNOT_CHECK: Final = 2
_COMMANDS: Final = (
    "lab",
    "bundle",
    "init",
    "capacity",
    "key",
    "ca",
    "plan",
    "apply",
    "verify",
    "status",
    "drain",
    "doctor",
    "bench",
    "report",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command; each module of this folder adds its own."""
    parser = argparse.ArgumentParser(prog="rackserve", description=__doc__)
    parser.add_argument("--version", action="version", version=f"rackserve {__version__}")
    parser.add_argument("--debug", action="store_true", help="log what rackserve runs, to stderr")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in _COMMANDS:
        importlib.import_module(f"rackserve.cli._{name}").register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_parser().parse_args(argv)
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
            f"the working directory {where} was removed; cd to one that is there, and run it again"
        ) from gone


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
