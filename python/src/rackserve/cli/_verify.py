"""`rackserve verify`: a verdict on every layer of a site, from its hosts and through its edge."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rackserve.checks.evidence import host_results
from rackserve.checks.fleet import edge_results, gather_evidence
from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_site_options
from rackserve.cli._progress import format_table, show_edge, shown
from rackserve.errors import InputError
from rackserve.run import load_fleet, resolve_inventory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rackserve.checks import CheckResult


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_site_options(parser, "the verdict")
    parser.add_argument("--junit", metavar="FILE", help="also write the verdict as JUnit XML")
    parser.set_defaults(handler=verify)


def verify(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.junit and not Path(args.junit).expanduser().absolute().parent.is_dir():
        raise InputError(f"cannot write --junit {args.junit}: its folder does not exist; make it first")
    inventory = resolve_inventory(args.inventory)
    fleet = load_fleet(inventory)
    with shown() as on_event:
        result, evidence = gather_evidence(inventory, ["verify"], args.limit, on_event)
    in_run = {host.name for host in result.hosts}
    hosts = [name for name in fleet.names if name in in_run]
    if not hosts:
        raise InputError(f"no host of {inventory} was checked; see --limit and hosts.yml")
    results = [*host_results(result, evidence, hosts), *edge_results(evidence.values(), show_edge)]
    ok = bool(results) and all(check.ok for check in results)
    if args.junit:
        Path(args.junit).expanduser().write_bytes(junit(results))
    print(
        json.dumps({"ok": ok, "checks": [asdict(check) for check in results]}, indent=2)
        if args.json
        else _table(results)
    )
    return EXIT_OK if ok else EXIT_CHECK_FAILED


def _table(results: Sequence[CheckResult]) -> str:
    rows = [(check.host, check.name, "ok" if check.ok else "FAILED", check.detail) for check in results]
    failed = sum(not check.ok for check in results)
    verdict = f"{len(results)} checks, all ok" if not failed else f"{len(results)} checks, {failed} failed"
    return f"{format_table(('HOST', 'CHECK', 'VERDICT', 'DETAIL'), rows)}\n\n{verdict}"


def junit(results: Sequence[CheckResult]) -> bytes:
    """Return the verdict as JUnit XML: one test suite per host."""
    root = ET.Element("testsuites", name="rackserve verify")
    for host in dict.fromkeys(check.host for check in results):
        mine = [check for check in results if check.host == host]
        failed = sum(not check.ok for check in mine)
        suite = ET.SubElement(root, "testsuite", name=host, tests=str(len(mine)), failures=str(failed))
        for check in mine:
            case = ET.SubElement(suite, "testcase", classname=host, name=check.name)
            if check.ok:
                ET.SubElement(case, "system-out").text = check.detail
            else:
                ET.SubElement(case, "failure", message=check.detail)
    text: str = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()
