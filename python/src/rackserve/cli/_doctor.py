"""`rackserve doctor`: probable causes of faults with evidence and fix, likeliest first."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rackserve.cli import EXIT_CANNOT_CHECK, EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_site_options
from rackserve.cli._progress import shown
from rackserve.doctor.fleet import examine
from rackserve.run import load_fleet, resolve_inventory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rackserve.doctor import Finding


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_site_options(parser, "the findings")
    parser.set_defaults(handler=doctor)


def doctor(args: argparse.Namespace) -> int:
    """Run the command: exit 0 when nothing was found, 1 when something was, 2 when no host could be checked."""
    inventory = resolve_inventory(args.inventory)
    with shown() as on_event:
        findings, seen = examine(load_fleet(inventory), args.limit, on_event)
    if args.json:
        print(json.dumps({"ok": not findings, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(_text(findings, seen))
    if not seen:
        return EXIT_CANNOT_CHECK
    return EXIT_CHECK_FAILED if findings else EXIT_OK


def _text(findings: Sequence[Finding], hosts: int) -> str:
    if not findings:
        return f"nothing found on {hosts} host{'s' if hosts != 1 else ''}"
    return "\n\n".join(
        f"{number}. {finding.host}{f' {finding.instance}' if finding.instance else ''}: {finding.cause}"
        f" ({finding.likelihood} of 100)\n   seen: {finding.evidence}\n   do:   {finding.fix}"
        for number, finding in enumerate(findings, 1)
    )
