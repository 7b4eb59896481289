"""`rackserve lab`: the built-in hosts."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rackserve import lab
from rackserve.cli import EXIT_OK
from rackserve.cli._options import add_json

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    up = _add(actions, "up", "have the hosts run; those that do are left alone")
    up.add_argument("--prefix", help="network of a lab with a name of its own: the first three numbers, as 10.89.9")
    up.add_argument("--host", action="append", default=[], metavar="NAME", help="only this host (repeatable)")
    up.add_argument("--release", action="append", default=[], metavar="HOST=13", help="Debian release of a host")
    add_json(up, "the status")
    up.set_defaults(handler=_up)

    down = _add(actions, "down", "remove the hosts and all that belongs to them; the base trees stay cached")
    add_json(down, "whether anything was removed")
    down.set_defaults(handler=_down)

    status = _add(actions, "status", "what the hosts do, and how many packets tried to leave the lab")
    add_json(status, "it")
    status.set_defaults(handler=_status)

    ssh = _add(actions, "ssh", "a shell, or a command, as root on a host")
    ssh.add_argument("host", metavar="HOST")
    ssh.add_argument("remote", nargs="*", metavar="COMMAND", help="after --")
    ssh.set_defaults(handler=_ssh)

    reset = _add(actions, "reset", "give hosts a fresh root")
    reset.add_argument("hosts", nargs="*", metavar="HOST", help="all by default")
    reset.add_argument("--from", dest="origin", metavar="SNAPSHOT", help="make them clones of it, not bare hosts")
    add_json(reset, "the status")
    reset.set_defaults(handler=_reset)

    snapshot = _add(actions, "snapshot", "power a host off, keep its root, and boot it as a clone of that")
    snapshot.add_argument("host", metavar="HOST")
    snapshot.add_argument("snapshot", metavar="SNAPSHOT", help="a new name")
    add_json(snapshot, "the status")
    snapshot.set_defaults(handler=_snapshot)

    snapshots = _add(actions, "snapshots", "list the snapshots, of all labs")
    snapshots.add_argument("--remove", metavar="SNAPSHOT", help="remove one that no host and no other snapshot needs")
    add_json(snapshots, "them")
    snapshots.set_defaults(handler=_snapshots)

    reboot = _add(actions, "reboot", "reboot a host and wait for it")
    reboot.add_argument("host", metavar="HOST")
    reboot.set_defaults(handler=_reboot)


def _add(actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    default = os.environ.get("RACKSERVE_LAB") or "demo"
    parser.add_argument("--name", default=default, help="the lab (default: $RACKSERVE_LAB or demo)")
    return parser


def _progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _up(args: argparse.Namespace) -> int:
    releases = dict(lab.parse_release(text) for text in args.release)
    spec = lab.lab_spec(args.name, prefix=args.prefix, releases=releases)
    _show(lab.up(spec, _progress, only=args.host), as_json=args.json)
    return EXIT_OK


def _down(args: argparse.Namespace) -> int:
    removed = lab.down(args.name, _progress)
    if args.json:
        print(json.dumps({"name": args.name, "changed": removed}))
    else:
        print(f"lab {args.name}: {'removed' if removed else 'nothing to remove'}")
    return EXIT_OK


def _status(args: argparse.Namespace) -> int:
    _show(lab.status(args.name), as_json=args.json)
    return EXIT_OK


def _ssh(args: argparse.Namespace) -> int:
    words: list[str] = args.remote
    command = words if len(words) == 1 else [shlex.join(words)] if words else []  # one word may be a shell line
    argv = lab.ssh_argv(args.name, args.host, command)
    os.execvp(argv[0], argv)  # noqa: S606 - the terminal, the signals and the exit code become ssh's own


def _reset(args: argparse.Namespace) -> int:
    _show(lab.reset(args.name, args.hosts, _progress, origin=args.origin), as_json=args.json)
    return EXIT_OK


def _snapshot(args: argparse.Namespace) -> int:
    _show(lab.snapshot(args.name, args.host, args.snapshot, _progress), as_json=args.json)
    return EXIT_OK


def _snapshots(args: argparse.Namespace) -> int:
    if args.remove:
        lab.remove_snapshot(args.remove)
    found = lab.load_snapshots()
    if args.json:
        print(json.dumps([{"name": each.name, "debian_release": each.debian_release} for each in found], indent=2))
    elif not found:
        print("no snapshots; rackserve lab snapshot HOST SNAPSHOT makes one")
    for each in () if args.json else found:
        print(f"{each.name}  Debian {each.debian_release}")
    return EXIT_OK


def _reboot(args: argparse.Namespace) -> int:
    print(f"{args.host}: booted in {lab.reboot(args.name, args.host):.1f} s")
    return EXIT_OK


def _show(status: lab.LabStatus, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(status), indent=2))
        return
    if not status.hosts:
        print(f"lab {status.name}: no hosts; run rackserve lab up --name {status.name}")
        return
    rows = [("HOST", "ADDRESS", "DEBIAN", "STATE", "BOOT", "LEFT LAB", "DEFAULT ROUTE")]
    for host in status.hosts:
        boot = "-" if host.boot_s is None else f"{host.boot_s:.1f} s"
        left = "-" if host.packets_left_lab is None else str(host.packets_left_lab)
        route = {None: "-", True: "yes", False: "none"}[host.has_default_route]
        rows.append((host.name, host.address, str(host.release), host.state, boot, left, route))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
