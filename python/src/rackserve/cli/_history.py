"""`rackserve history`: who changed what and when, from the records of this controller and of the hosts."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rackserve import history
from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_site_options
from rackserve.cli._progress import format_table, shown
from rackserve.run import failure_messages, load_fleet, read_locks, resolve_inventory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_site_options(parser, "the runs with all that is recorded of them")
    parser.add_argument(
        "--verify", action="store_true", help="say of each run whether its record is intact, and its key"
    )
    parser.set_defaults(handler=show)


def show(args: argparse.Namespace) -> int:
    """Run the command: exit 1 when a host was not read, or, with --verify, a record is not intact."""
    inventory = resolve_inventory(args.inventory)
    fleet = load_fleet(inventory)
    with shown() as on_event:
        result, found = read_locks(inventory, args.limit, on_event=on_event)
    messages = failure_messages(result, fleet)
    lines = {host: [str(line) for line in one["lines"]] for host, one in found.items()}
    own = history.site_lines(inventory, lines)
    runs = history.selected(history.merge(own, lines, verify=args.verify), list(found) if args.limit else None)
    key = history.fingerprint() if args.verify else ""
    problems = [problem for run in runs for problem in run.problems]
    if args.json:
        shown_runs = [_as_json(run, verify=args.verify) for run in runs]
        print(json.dumps({"ok": not (messages or problems), "runs": shown_runs, "messages": messages}, indent=2))
    else:
        print(_table(runs, key, verify=args.verify))
    for message in [*messages, *problems]:
        print(message, file=sys.stderr)
    return EXIT_CHECK_FAILED if messages or problems else EXIT_OK


def _as_json(run: history.Run, *, verify: bool) -> dict[str, Any]:
    told = {key: value for key, value in run.entry.items() if key not in ("chain", "stored", "sites")}
    return told | ({"intact": not run.problems, "keys": sorted(run.keys), "problems": run.problems} if verify else {})


def _table(runs: Sequence[history.Run], key: str, *, verify: bool) -> str:
    if not runs:
        return "no run has changed anything"
    head = ["WHEN", "WHO", "PLAYBOOK", "OUTCOME", *(["RECORD"] if verify else []), "WHAT"]
    rows = []
    for run in runs:
        holder = run.entry.get("holder", {})
        who = f"{holder.get('user', '?')}@{holder.get('host', '?')}"
        record = [_verdict(run, key)] if verify else []
        outcome = str(run.entry.get("outcome", "?"))
        when = str(run.entry.get("since", "?"))
        rows.append([when, who, str(holder.get("command", "?")), outcome, *record, "; ".join(_what(run.entry))])
    return format_table(head, rows)


def _verdict(run: history.Run, key: str) -> str:
    if run.problems:
        return "NOT INTACT"
    return "intact, " + ", ".join("this controller's key" if one == key else one for one in sorted(run.keys))


def _what(entry: Mapping[str, Any]) -> list[str]:
    changed = ", ".join(host for host, count in entry.get("changed", {}).items() if count)
    told = [f"changed {changed}"] if changed else []
    told += [f"failed on {host} at {task!r}" for host, task in entry.get("failed", {}).items()]
    records = entry.get("records", [])
    gates = [record for record in records if record.get("kind") == "gate"]
    if gates:
        bad = [f"{gate.get('gate', '?')} of {_where(gate)}" for gate in gates if gate.get("ok") is False]
        judged = sum(gate.get("ok") is not None for gate in gates)
        told.append(f"{judged - len(bad)} of {judged} gates passed" + (f", failed: {', '.join(bad)}" if bad else ""))
    return told + [_one(record) for record in records if record.get("kind") != "gate"]


def _where(record: Mapping[str, Any]) -> str:
    return ":".join(str(record[key]) for key in ("host", "instance") if record.get(key))


def _one(record: Mapping[str, Any]) -> str:
    kind, where = str(record.get("kind", "?")), _where(record)
    if kind in ("switch", "return"):
        return f"{kind} {where} {record.get('before') or 'nothing'} -> {record.get('after') or 'nothing'}"
    if kind == "bundle":
        return f"bundle {record.get('name')} version {record.get('version')}"
    if kind == "consent":
        return f"allowed {record.get('what')}: {record.get('reason')}"
    if kind == "accept":
        return f"accepted {len(record.get('differences', []))} differences {where}: {record.get('reason')}"
    if kind in ("lock_broken", "lock_taken_over"):
        return f"{kind.replace('_', ' ')} {where}, of run {record.get('of', {}).get('run')}: {record.get('reason')}"
    return f"{kind} {where}".strip()
