"""Options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
