"""`rackserve retire`: takes hosts out of edges and Prometheus, then stops and removes what serves on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve import rollout
from rackserve.cli import EXIT_OK
from rackserve.cli._options import add_confirmation, add_inventory, add_json, confirmed
from rackserve.cli._progress import conclude, outcome, shown
from rackserve.cli._rollout_text import records_of
from rackserve.errors import InputError
from rackserve.run import failure_messages, load_fleet, resolve_inventory, rollout_variables, run_site

if TYPE_CHECKING:
    import argparse

    from rackserve.run import RunEvent

_PLAYBOOK: Final = "playbooks/retire_hosts.yml"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("hosts", nargs="+", metavar="HOST", help="a vLLM host that is still in the inventory")
    add_inventory(parser)
    add_json(parser, "the result")
    add_confirmation(parser)
    parser.add_argument(
        "--wipe", action="store_true", help="remove keys, weights, caches, bundle and runtimes too; no secure erasure"
    )
    parser.add_argument("--consent", metavar="REASON", help="why requests may be lost; it is recorded")
    parser.set_defaults(handler=retire)


def retire(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        InputError: the hosts cannot retire, whatever they serve.
    """
    inventory = resolve_inventory(args.inventory)
    hosts = list(dict.fromkeys(args.hosts))
    members: dict[str, list[str]] = {}
    for host in load_fleet(inventory).hosts:
        for group in host.groups:
            members.setdefault(group, []).append(host.name)
    if problems := rollout.retire_problems(hosts, members):
        raise InputError(f"nothing was changed: {'; '.join(problems)}")
    wipe = " and wipe their keys, weights, caches, bundle and runtimes" if args.wipe else ""
    if not confirmed(args, f"Retire {', '.join(hosts)}: drain, remove the instances{wipe}?"):
        return EXIT_OK
    records: list[dict[str, Any]] = []

    def take(event: RunEvent) -> None:
        records.extend(dict(record) for record in records_of(event) if record.get("kind") == "retire")

    variables = {"stack_retire_hosts": hosts, "stack_retire_wipe": args.wipe} | rollout_variables(consent=args.consent)
    with shown(take) as on_event:
        result, fleet = run_site(
            args.inventory, None, check=False, on_event=on_event, variables=variables, playbook_name=_PLAYBOOK
        )
    messages = failure_messages(result, fleet)
    said = [text for record in records for text in record["text"]]
    found = {**outcome(result, messages), "retired": records} if args.json else None
    return conclude(result, messages, said=said, found=found)
