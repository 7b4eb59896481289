"""`rackserve apply`: runs site.yml on a site, under the site's run lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.cli._options import add_site_options
from rackserve.cli._progress import conclude, format_table, outcome, shown
from rackserve.run import failure_messages, run_site

if TYPE_CHECKING:
    import argparse

    from rackserve.run import RunResult


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_site_options(parser, "the result")
    parser.add_argument("--check", action="store_true", help="change nothing; show what would change")
    parser.add_argument(
        "--allow-downgrade", metavar="REASON", help="install a bundle older than one installed before; it is recorded"
    )
    parser.set_defaults(handler=apply)


def apply(args: argparse.Namespace) -> int:
    """Run the command."""
    variables = {"stack_downgrade_reason": args.allow_downgrade} if args.allow_downgrade else None
    with shown() as on_event:
        result, fleet = run_site(args.inventory, args.limit, check=args.check, on_event=on_event, variables=variables)
    messages = failure_messages(result, fleet)
    found = outcome(result, messages) if args.json else None
    return conclude(result, messages, said=[_table(result)], found=found)


def _table(result: RunResult) -> str:
    head = ("HOST", "OK", "CHANGED", "FAILED", "UNREACHABLE", "SKIPPED")
    return format_table(
        head,
        [
            (host.name, *(str(n) for n in (host.ok, host.changed, host.failed, host.unreachable, host.skipped)))
            for host in result.hosts
        ],
    )
