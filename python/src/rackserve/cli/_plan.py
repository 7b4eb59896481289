"""`rackserve plan`: what `rackserve apply` would change, by role and host; it changes nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_site_options
from rackserve.cli._progress import format_table, shown
from rackserve.run import ChangeLog, EventKind, by_role, failure_messages, run_site

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rackserve.run import RunEvent, RunResult, TaskChange


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_site_options(parser, "the plan")
    parser.set_defaults(handler=plan)


def plan(args: argparse.Namespace) -> int:
    """Run the command: exit 0 when every host could be compared, whether it differs or not; 1 when one could not."""
    log = ChangeLog()

    def take(event: RunEvent) -> None:
        if event.kind is EventKind.CHANGED:
            log.add(event.role, event.task, event.host)

    with shown(take) as on_event:
        result, fleet = run_site(args.inventory, args.limit, check=True, on_event=on_event)
    messages = failure_messages(result, fleet)
    if args.json:
        print(json.dumps(_as_json(result, log.changes, messages), indent=2))
    else:
        print(as_text(result, log.changes))
        for message in messages:
            print(message, file=sys.stderr)
    return EXIT_OK if result.ok else EXIT_CHECK_FAILED


def as_text(result: RunResult, changes: Sequence[TaskChange]) -> str:
    """Return what would change: how many tasks by role and host, then each of them."""
    names = [host.name for host in result.hosts]
    whole = "" if result.ok else " as far as could be seen"
    if not changes:
        return f"nothing would change on {', '.join(names)}{whole}"
    counts = [(role, *(str(found.get(name) or "-") for name in names)) for role, found in by_role(changes).items()]
    tasks = [(change.role, change.task, ", ".join(change.hosts)) for change in changes]
    differing = [host.name for host in result.hosts if host.changed]
    same = [name for name in names if name not in differing]
    verdict = f"{len(changes)} tasks would change {', '.join(differing)}{whole}"
    if same and result.ok:
        verdict += f"; nothing on {', '.join(same)}"
    return "\n\n".join(
        [format_table(("ROLE", *names), counts), format_table(("ROLE", "TASK", "HOSTS"), tasks), verdict]
    )


def _as_json(result: RunResult, changes: Sequence[TaskChange], messages: Sequence[str]) -> dict[str, object]:
    return {
        "ok": result.ok,
        "differs": bool(changes),
        "hosts": [asdict(host) for host in result.hosts],
        "changes": [asdict(change) for change in changes],
        "roles": by_role(changes),
        "messages": list(messages),
        "record": str(result.record_dir),
    }
