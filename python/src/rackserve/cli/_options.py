"""Options that several commands have."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rackserve.errors import InputError

if TYPE_CHECKING:
    import argparse


def add_inventory(options: argparse._ActionsContainer) -> None:
    """Add `-i`, the site, to a parser or one of its groups."""
    options.add_argument("-i", "--inventory", metavar="DIR", help="the site's inventory (default: the lab's)")


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--json`.

    Args:
        parser: the command's.
        what: is printed, for the help: "the plan".
    """
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def add_site_options(parser: argparse.ArgumentParser, printed: str) -> None:
    """Add what every command about a site's hosts has: `-i`, `--limit` and `--json`.

    Args:
        parser: the command's.
        printed: what `--json` prints, for the help: "the plan".
    """
    add_inventory(parser)
    parser.add_argument("--limit", metavar="PATTERN", help="only these hosts")
    add_json(parser, printed)


def add_confirmation(parser: argparse.ArgumentParser) -> None:
    """Add `--yes`, without which `confirmed` asks."""
    parser.add_argument("--yes", action="store_true", help="do not ask before the first change")


def require_answer(args: argparse.Namespace) -> None:
    """Refuse to begin where nobody can be asked.

    Raises:
        InputError: there is no terminal, and no `--yes`.
    """
    if not args.yes and not sys.stdin.isatty():
        raise InputError("this command asks before its first change, and there is no terminal; give --yes")


def confirmed(args: argparse.Namespace, question: str) -> bool:
    """Ask for a yes on the terminal, unless `--yes` gave it.

    Raises:
        InputError: as `require_answer`.
    """
    require_answer(args)
    if args.yes:
        return True
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("nothing was changed", file=sys.stderr)
    return False
