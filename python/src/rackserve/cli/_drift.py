"""`rackserve drift`: what differs on a site's hosts from what the last complete run left on them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rackserve.cli import EXIT_CANNOT_CHECK, EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_site_options
from rackserve.cli._progress import format_table, shown
from rackserve.drift.fleet import compare
from rackserve.run import load_fleet, resolve_inventory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rackserve.drift.fleet import Difference, HostDrift

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
ACCEPT: Final = "to accept all as it is on a host: ansible-playbook -i DIR playbooks/record_fleet.yml --limit HOST"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_site_options(parser, "the differences")
    parser.set_defaults(handler=drift)


def drift(args: argparse.Namespace) -> int:
    """Run the command: exit 0 without a difference, 1 with any, 2 when a host could not be compared."""
    inventory = resolve_inventory(args.inventory)
    with shown() as on_event:
        hosts = compare(load_fleet(inventory), args.limit, on_event)
    differences = [one for host in hosts for one in host.differences]
    unchecked = [(host.host, reason) for host in hosts for reason in host.unchecked]
    if args.json:
        print(json.dumps(_as_json(hosts, differences, unchecked), indent=2))
    else:
        print(_text(hosts, differences))
        for name, reason in unchecked:
            print(f"{name}: {reason}", file=sys.stderr)
    if differences:
        return EXIT_CHECK_FAILED
    return EXIT_CANNOT_CHECK if unchecked else EXIT_OK


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
