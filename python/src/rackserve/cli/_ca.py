"""`rackserve ca`: an offline certificate authority for a site that has none. Its key stays in its folder, mode 0600."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rackserve import pki
from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_inventory, add_json
from rackserve.cli._progress import format_table, shown
from rackserve.errors import InputError
from rackserve.run import run_edges

if TYPE_CHECKING:
    import argparse

_FOLDER = Path("~/.config/rackserve/pki")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    folder = {
        "type": Path,
        "default": _FOLDER,
        "metavar": "DIR",
        "help": f"the authority's folder (default: {_FOLDER})",
    }

    new = actions.add_parser("new", help="make an authority, for ten years")
    new.add_argument("--folder", **folder)  # type: ignore[arg-type]
    new.add_argument("--name", default="rackserve CA", help="its name (default: rackserve CA)")
    new.set_defaults(handler=make)

    issue = actions.add_parser("issue", help="have certificates of the edges, for a year; or one of a client")
    target = issue.add_mutually_exclusive_group()
    add_inventory(target)
    target.add_argument("--client", metavar="NAME", help="a client's, subject CN=NAME, in --folder")
    issue.add_argument("--folder", **folder)  # type: ignore[arg-type]
    issue.add_argument("--renew", action="store_true", help="make it anew, with a new key, whatever its end")
    issue.set_defaults(handler=issue_certificates)

    renew = actions.add_parser("renew", help="give the authority ten more years, with the same key")
    renew.add_argument("--folder", **folder)  # type: ignore[arg-type]
    renew.set_defaults(handler=renew_authority)

    revoke = actions.add_parser("revoke", help="put a client's certificate on the list crl.pem")
    revoke.add_argument("client", metavar="NAME")
    revoke.add_argument("--folder", **folder)  # type: ignore[arg-type]
    revoke.set_defaults(handler=revoke_client)

    listing = actions.add_parser("list", help="every certificate of the folder, and the days that it has left")
    listing.add_argument("--folder", **folder)  # type: ignore[arg-type]
    add_json(listing, "them")
    listing.set_defaults(handler=show)


def make(args: argparse.Namespace) -> int:
    """Run `ca new`."""
    folder = args.folder.expanduser()
    pki.new_authority(folder, args.name)
    pki.ensure_list(folder)
    print(folder / "ca.crt")
    print(f"Clients trust this file. {folder / 'ca.key'} signs for the site; keep a copy in a safe.", file=sys.stderr)
    return EXIT_OK


def issue_certificates(args: argparse.Namespace) -> int:
    """Run `ca issue`."""
    if args.client:
        folder = args.folder.expanduser()
        outcome = pki.ensure_client(folder, args.client, renew=args.renew)
        print(f"{folder / f'client-{args.client}.crt'}: {outcome}")
        return EXIT_OK
    variables = {"edge_certificate_renew": args.renew}
    with shown() as on_event:
        result, messages = run_edges(args.inventory, "issue_certificates.yml", variables, on_event=on_event)
    for host in result.hosts:
        print(f"{host.name}: {'made; `rackserve apply` brings it to the edge' if host.changed else 'nothing to make'}")
    for message in messages:
        print(message, file=sys.stderr)
    return EXIT_OK if result.ok else EXIT_CHECK_FAILED


def renew_authority(args: argparse.Namespace) -> int:
    """Run `ca renew`."""
    folder = args.folder.expanduser()
    old = pki.load(folder, "ca")
    if old is None:
        raise InputError(f"{folder} has no authority with its key; run `rackserve ca new`, or bring ca.key back")
    pki.save(folder, "ca", pki.renew_authority(old, dt.datetime.now(dt.UTC)))
    print(f"{folder / 'ca.crt'}: renewed; what it signed holds on, and the old file does until its own end")
    return EXIT_OK


def revoke_client(args: argparse.Namespace) -> int:
    """Run `ca revoke`."""
    folder = args.folder.expanduser()
    pki.revoke(folder, args.client)
    print(f"{folder / 'crl.pem'}: has it now; `rackserve apply` brings it to the edges (nginx_client_crl_src)")
    return EXIT_OK


def show(args: argparse.Namespace) -> int:
    """Run `ca list`."""
    rows = pki.rows(args.folder.expanduser())
    if args.json:
        print(json.dumps([row._asdict() for row in rows], indent=2))
        return EXIT_OK
    head = ("NAME", "KIND", "SUBJECT", "ENDS", "DAYS", "NAMES")
    table = [
        (row.name, row.kind, row.subject, row.ends, f"{row.days}{' (due)' * row.due}", ", ".join(row.names))
        for row in rows
    ]
    print(format_table(head, table))
    return EXIT_OK
