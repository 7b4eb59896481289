"""`rackserve drift`: what differs on hosts from what the last complete run left on them, and its acceptance."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rackserve.cli import EXIT_CANNOT_CHECK, EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_confirmation, add_site_options, confirmed, require_answer
from rackserve.cli._progress import conclude, format_table, outcome, shown
from rackserve.drift.fleet import compare
from rackserve.errors import InputError
from rackserve.run import failure_messages, load_fleet, resolve_inventory, run_site

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rackserve.drift.fleet import Difference, HostDrift
    from rackserve.run import RunEvent

_HEAD: Final = ("HOST", "KIND", "WHAT", "RECORDED", "FOUND", "SINCE", "BY")
_WIDTH: Final = 60
# By the kind of a difference.
ADVICE: Final = {
    "file": "`rackserve apply` writes it again; move a change that is to stay into the inventory",
    "unowned": "remove it, or move it out of the folder: no run does",
    "unit": "`rackserve apply` enables and starts; remove a drop-in or a mask that is not rackserve's by hand",
    "package": "`rackserve apply` installs and holds the bundle's; a newer version stays until it is accepted",
    "user": "undo it on the host: no run does",
    "socket": "see who listens there with `ss -tlnp`, and end it",
    "firewall": "restart the unit that keeps the table",
    "kernel": "boot the kernel that was recorded, or see the GPU and its driver with `rackserve doctor`",
}
ACCEPT: Final = "to accept all as it is on a host, and why: rackserve drift --limit HOST --accept REASON"
_PLAYBOOK: Final = "playbooks/record_fleet.yml"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_site_options(parser, "the differences")
    add_confirmation(parser)
    parser.add_argument("--accept", metavar="REASON", help="record what differs as it is, after a question; signed")
    parser.set_defaults(handler=drift)


def drift(args: argparse.Namespace) -> int:
    """Run the command: exit 0 without a difference, 1 with any, 2 when a host could not be compared.

    Raises:
        InputError: an acceptance without a reason, or of a host that could not be compared.
    """
    inventory = resolve_inventory(args.inventory)
    if args.accept is not None:
        if not args.accept.strip():
            raise InputError("--accept is empty; say why what differs is right")
        require_answer(args)
    with shown() as on_event:
        hosts = compare(load_fleet(inventory), args.limit, on_event)
    differences = [one for host in hosts for one in host.differences]
    unchecked = [(host.host, reason) for host in hosts for reason in host.unchecked]
    if args.accept is not None and differences:
        return _accept(args, hosts, differences, unchecked)
    if args.json:
        print(json.dumps(_as_json(hosts, differences, unchecked), indent=2))
    else:
        print(_text(hosts, differences))
        for name, reason in unchecked:
            print(f"{name}: {reason}", file=sys.stderr)
    if differences:
        return EXIT_CHECK_FAILED
    return EXIT_CANNOT_CHECK if unchecked else EXIT_OK


def _accept(
    args: argparse.Namespace,
    hosts: Sequence[HostDrift],
    differences: Sequence[Difference],
    unchecked: Sequence[tuple[str, str]],
) -> int:
    """Have hosts record what was printed here, and nothing that came later."""
    print(_text(hosts, differences), file=sys.stderr if args.json else sys.stdout)
    if unchecked:
        raise InputError(
            "nothing was accepted, because not everything could be compared: "
            + "; ".join(f"{name}: {reason}" for name, reason in unchecked)
        )
    seen = [f"{one.host}: {one.text}" for one in differences]
    names = [host.host for host in hosts if host.differences]
    if not confirmed(args, f"Accept this on {', '.join(names)}?"):
        return EXIT_OK
    left: list[str] = []

    def take(event: RunEvent) -> None:
        notes = event.data.get("notes")
        left.extend(map(str, notes if isinstance(notes, list) else ()))

    with shown(take) as on_event:
        result, fleet = run_site(
            args.inventory,
            ",".join(names),
            check=False,
            on_event=on_event,
            variables={"drift_accept_reason": args.accept.strip(), "drift_accept_seen": seen},
            playbook_name=_PLAYBOOK,
        )
    messages = [*failure_messages(result, fleet), *(f"still a difference: {text}" for text in left)]
    found = {**outcome(result, messages), "accepted": seen if result.ok else []} if args.json else None
    code = conclude(result, messages, found=found)
    return EXIT_CHECK_FAILED if left else code


def _text(hosts: Sequence[HostDrift], differences: Sequence[Difference]) -> str:
    compared = sum(bool(host.written) for host in hosts)
    if not differences:
        return f"no difference on {compared} host{'s' if compared != 1 else ''}"
    table = format_table(_HEAD, [_row(one) for one in differences])
    kinds = dict.fromkeys(one.kind for one in differences)
    advice = [f"{kind}: {ADVICE[kind]}" for kind in kinds]
    count = f"{len(differences)} difference{'s' if len(differences) != 1 else ''}"
    return "\n".join([table, "", count, *advice, ACCEPT])


def _row(one: Difference) -> tuple[str, ...]:
    what = one.what if one.attribute in ("presence", "value") else f"{one.what}: {one.attribute}"
    recorded, found = one.recorded or "-", one.found or "-"
    if one.attribute == "presence":
        recorded, found = one.recorded or "absent", one.found or "absent"
    return one.host, one.kind, what, _short(recorded), _short(found), one.since, one.by


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def _as_json(
    hosts: Sequence[HostDrift], differences: Sequence[Difference], unchecked: Sequence[tuple[str, str]]
) -> dict[str, object]:
    return {
        "ok": not differences and not unchecked,
        "differences": [asdict(one) for one in differences],
        "unchecked": [{"host": name, "reason": reason} for name, reason in unchecked],
        "hosts": [
            {"host": host.host, "written": host.written, "seconds": host.seconds, "differences": len(host.differences)}
            for host in hosts
        ],
    }
