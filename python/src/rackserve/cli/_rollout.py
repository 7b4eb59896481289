"""`rackserve rollout`: shows what a change does, asks, and makes it, host by host, while the fleet serves."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rackserve.cli import EXIT_OK
from rackserve.cli._generation_before import roll_back
from rackserve.cli._options import add_confirmation, add_site_options, confirmed, require_answer
from rackserve.cli._progress import conclude, format_table, outcome, shown
from rackserve.cli._rollout_text import PLAN_HEAD, plan_notes, plan_rows, records_of
from rackserve.errors import InputError
from rackserve.rollout import parse_steps
from rackserve.run import (
    KeptRollout,
    ask_for_pause,
    failure_messages,
    keep_rollout,
    last_rollout,
    pause_file,
    resolve_inventory,
    rollout_variables,
    run_site,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path

    from rackserve.run import Fleet, RunEvent, RunResult


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_site_options(parser, "plan and result")
    add_confirmation(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="print the plan and end; change nothing")
    what.add_argument("--resume", action="store_true", help="go on with the last rollout, which paused, failed or died")
    what.add_argument("--pause", action="store_true", help="ask the rollout that runs to pause after its batch")
    what.add_argument(
        "--abort", action="store_true", help="return what the last rollout changed to the generation before"
    )
    parser.add_argument("--consent", metavar="REASON", help="lose the requests that the plan names; it is recorded")
    parser.add_argument("--steps", metavar="LIST", help="hosts of each batch in place of the inventory's: 1,25%%")
    parser.add_argument("--pause-after", metavar="BATCH|HOST", help="pause after a batch, or that of a host")
    parser.add_argument(
        "--allow-downgrade", metavar="REASON", help="install a bundle older than one installed before; it is recorded"
    )
    parser.set_defaults(handler=rollout)


@dataclass
class _Watched:
    """What a run tells about its rollout."""

    inventory: Path
    kept: KeptRollout | None
    plan: dict[str, Any] | None = None
    gates: list[dict[str, Any]] = field(default_factory=list)
    paused_after: int | None = None
    started: bool = False

    def take(self, event: RunEvent) -> None:
        """Take an event, and keep the rollout before it changes anything."""
        if self.kept and not self.started:
            pause_file(self.inventory).unlink(missing_ok=True)  # one of an earlier run; only now is the lock ours
        self.started = True
        for record in records_of(event):
            if record["kind"] == "plan":
                self.plan = dict(record)
                if self.kept:
                    keep_rollout(self.inventory, self.kept.with_rows(record["rows"]))
                    _print_plan(self.plan, to_stderr=True)
            elif record["kind"] == "driver_plan" and record["rows"]:
                _print_plan(record, to_stderr=True)
            elif record["kind"] == "gate":
                self.gates.append(dict(record))
            elif record["kind"] == "pause":
                self.paused_after = int(record["after"])


def rollout(args: argparse.Namespace) -> int:
    """Run the command."""
    inventory = resolve_inventory(args.inventory)
    if args.pause:
        ask_for_pause(inventory)
        print(json.dumps({"ok": True}) if args.json else "the rollout pauses after its present batch")
        return EXIT_OK
    if args.abort:
        return _abort(args, last_rollout(inventory))
    if not args.check:
        require_answer(args)
    kept = _kept(args, inventory)
    variables = {**kept.options, **rollout_variables(pause_after=args.pause_after)}
    if args.check or not args.yes:
        asked = {**variables, "stack_rollout_stop_after": "plan"}
        watched, result, fleet = _run(args, _Watched(inventory, None), kept.limit, asked)
        if args.check or not result.ok:
            return _end(args, watched, result, fleet)
        if watched.plan:
            _print_plan(watched.plan, to_stderr=args.json)
        if not confirmed(args, "Start this rollout?"):
            return EXIT_OK
    variables["stack_rollout_pause"] = str(pause_file(inventory))
    return _end(args, *_run(args, _Watched(inventory, kept), kept.limit, variables))


def _kept(args: argparse.Namespace, inventory: Path) -> KeptRollout:
    steps = parse_steps(args.steps.split(",")) if args.steps else ()
    options = rollout_variables(consent=args.consent, steps=steps)
    if args.allow_downgrade:
        options["stack_downgrade_reason"] = args.allow_downgrade
    if not args.resume:
        return KeptRollout(args.limit, dict(options))
    last = last_rollout(inventory)
    return KeptRollout(args.limit or last.limit, {**last.options, **options}, last.changed)


def _run(
    args: argparse.Namespace, watched: _Watched, limit: str | None, variables: Mapping[str, object]
) -> tuple[_Watched, RunResult, Fleet]:
    """Run site.yml; in check mode, for its plan, where no rollout is kept."""
    check = watched.kept is None
    with shown(watched.take) as on_event:
        result, fleet = run_site(args.inventory, limit, check=check, on_event=on_event, variables=variables)
    return watched, result, fleet


def _end(args: argparse.Namespace, watched: _Watched, result: RunResult, fleet: Fleet) -> int:
    messages = failure_messages(result, fleet)
    plan = [_plan_text(watched.plan)] if watched.plan else []
    said = [_verdict(watched, result)] if watched.kept else plan
    found = _as_json(watched, result, messages) if args.json else None
    return conclude(result, messages, said=said, found=found)


def _verdict(watched: _Watched, result: RunResult) -> str:
    batches = len(watched.plan["serial"]) if watched.plan else 0
    if watched.paused_after is not None:
        return f"paused after batch {watched.paused_after} of {batches}; go on with: rackserve rollout --resume"
    if not result.ok:
        return "the rollout has ended; mend what it names, then: rackserve rollout --resume, or --abort to return"
    hosts = [row["host"] for row in watched.plan["rows"]] if watched.plan else []
    return f"the rollout is complete: {', '.join(dict.fromkeys(hosts)) or 'no host'} changed"


def _print_plan(plan: Mapping[str, Any], *, to_stderr: bool) -> None:
    print(_plan_text(plan), file=sys.stderr if to_stderr else sys.stdout, flush=True)


def _plan_text(plan: Mapping[str, Any]) -> str:
    rows = plan_rows(plan)
    return "\n".join([*([format_table(PLAN_HEAD, rows), ""] if rows else []), *plan_notes(plan)])


def _abort(args: argparse.Namespace, last: KeptRollout) -> int:
    if not last.hosts:
        raise InputError("the last rollout of this inventory changed no host, so there is nothing to return")
    if not confirmed(args, f"Return {', '.join(last.hosts)} to the generation before?"):
        return EXIT_OK
    return roll_back(args, last.hosts, last.changed)


def _as_json(watched: _Watched, result: RunResult, messages: list[str]) -> dict[str, object]:
    return {
        "ok": result.ok,
        "plan": watched.plan,
        "gates": watched.gates,
        "paused_after": watched.paused_after,
        **outcome(result, messages),
    }
