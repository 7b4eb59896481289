"""`rackserve doctor`: what is wrong with a fleet, how that was seen and what to do, likeliest first."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rackserve import _runner
from rackserve._fleet import load_fleet, resolve_inventory
from rackserve._paths import project_root
from rackserve._runner import unreachable_message
from rackserve.cli import EXIT_CANNOT_CHECK, EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._progress import Progress
from rackserve.doctor import Finding, diagnose, read_evidence
from rackserve.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from rackserve._fleet import Fleet
    from rackserve._runner import RunEvent


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("doctor", help="say what is wrong with a fleet and what to do", description=__doc__)
    parser.add_argument("-i", "--inventory", metavar="DIR", help="the site's inventory (default: the lab's)")
    parser.add_argument("--limit", metavar="PATTERN", help="only these hosts")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(handler=doctor)


def doctor(args: argparse.Namespace) -> int:
    """Run the command: exit 0 when nothing was found, 1 when something was, 2 when no host could be looked at."""
    inventory = resolve_inventory(args.inventory)
    findings, seen = examine(inventory, load_fleet(inventory), args.limit)
    if args.json:
        print(json.dumps({"ok": not findings, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(_text(findings, seen))
    if not seen:
        return EXIT_CANNOT_CHECK
    return EXIT_CHECK_FAILED if findings else EXIT_OK


def examine(inventory: Path, fleet: Fleet, limit: str | None) -> tuple[list[Finding], int]:
    """Run playbooks/diagnose_fleet.yml and judge what it brings.

    Returns:
        The findings, likeliest first, and how many hosts could be looked at.

    Raises:
        InputError: when no host was asked.
    """
    playbook = project_root() / "playbooks" / "diagnose_fleet.yml"
    found: dict[str, dict[str, Any]] = {}
    with Progress() as progress:

        def take(event: RunEvent) -> None:
            evidence = event.data.get("evidence")
            if isinstance(evidence, dict):
                found[event.host] = evidence
            progress.take(event)

        result = _runner.run_playbook(
            playbook, inventory, on_event=take, record_dir=_runner.new_record_dir(playbook), limit=limit
        )
    if not result.hosts:
        raise InputError(f"no host of {inventory} was looked at; look at --limit and hosts.yml")
    unread = {failure.host: unreachable_message(failure) for failure in result.unreachable}
    unread |= {failure.host: failure.message for failure in result.failures}
    findings = [
        *(_unreachable(host, unread[host]) for host in fleet.names if host in unread),
        *diagnose(read_evidence(found.items())),
    ]
    return findings, len(found)


def _unreachable(host: str, message: str) -> Finding:
    return Finding(
        "the host is off, cut from the network, or cannot be read",
        host,
        "",
        message,
        "power, link, SSH",
        100,
        "no-host",
    )


def _text(findings: Sequence[Finding], hosts: int) -> str:
    if not findings:
        return f"nothing found on {hosts} host{'s' if hosts != 1 else ''}"
    return "\n\n".join(
        f"{number}. {finding.host}{f' {finding.instance}' if finding.instance else ''}: {finding.cause}"
        f" ({finding.likelihood} of 100)\n   seen: {finding.evidence}\n   do:   {finding.fix}"
        for number, finding in enumerate(findings, 1)
    )
