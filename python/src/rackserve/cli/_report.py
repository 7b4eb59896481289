"""`rackserve report`: one page about a site, to attach to a hand-over."""

from __future__ import annotations

import datetime as dt
import json
import platform
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rackserve import __version__
from rackserve.bench import read_result
from rackserve.checks.edge import key_of
from rackserve.checks.evidence import host_results
from rackserve.checks.fleet import edge_results
from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._load import add_load_options, load_of, measure, target_of
from rackserve.cli._options import add_site_options
from rackserve.cli._progress import show_edge, shown
from rackserve.doctor.fleet import examine
from rackserve.errors import InputError, RunError
from rackserve.report import (
    BundleFacts,
    SiteCollector,
    SiteReport,
    describe_bundle,
    describe_capacity,
    describe_hosts,
    describe_instances,
    find_record,
    read_run,
    refuse_target,
    render,
    write_page,
)
from rackserve.run import inspect_fleet, load_fleet, resolve_inventory

if TYPE_CHECKING:
    import argparse

    from rackserve.bench import Load
    from rackserve.run import Fleet

_TOOLS: Final = ("ansible-core", "ansible-runner", "httpx", "jinja2", "pydantic")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_site_options(parser, "where it was written and the verdicts")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the page, such as site.html")
    parser.add_argument("--overwrite", action="store_true", help="even a file that is not a report")
    parser.add_argument(
        "--run", metavar="RECORD", help="name or folder of a run's record (the last `apply` of the site)"
    )
    bench = parser.add_mutually_exclusive_group()
    bench.add_argument("--bench", action="store_true", help="also put a short load on the site, as `rackserve bench`")
    bench.add_argument("--bench-file", type=Path, metavar="FILE", help="show what `rackserve bench --json` printed")
    add_load_options(parser)
    parser.set_defaults(handler=report)


def report(args: argparse.Namespace) -> int:
    """Run the command: exit 0 when all is well, 1 when something is not (the page is written too), 2 when it cannot."""
    target = args.output.expanduser().absolute()
    refuse_target(target, overwrite=args.overwrite)
    load = load_of(args)
    measured = read_result(args.bench_file.expanduser()) if args.bench_file else None
    inventory = resolve_inventory(args.inventory)
    fleet = load_fleet(inventory)
    record = find_record(args.run, inventory)
    seen = SiteCollector()
    found = _look(args, fleet, seen)
    if record:
        found = replace(found, run=read_run(record))
    if args.bench:
        found = _with_bench(found, args, load, seen)
    elif measured:
        found = replace(found, bench=measured)
    print("Writing the page", file=sys.stderr)
    write_page(target, render(found, dt.datetime.now(dt.UTC)))
    if args.json:
        print(json.dumps({"ok": found.ok, "path": str(target), "verdicts": found.verdicts}, indent=2))
    else:
        words = {True: "ok", False: "FAILED", None: "not checked"}
        for name, verdict in found.verdicts.items():
            print(f"{name:<9} {words[verdict]}")
        print(target)
    return EXIT_OK if found.ok else EXIT_CHECK_FAILED


def _look(args: argparse.Namespace, fleet: Fleet, seen: SiteCollector) -> SiteReport:
    inventory = fleet.inventory
    with shown(seen.take) as on_event:
        tags = ["verify", "status", "report"]
        result = inspect_fleet(inventory, tags, on_event=on_event, limit=args.limit)
    in_run = {host.name for host in result.hosts}
    hosts = [host for host in fleet.hosts if host.name in in_run]
    if not hosts:
        raise InputError(f"no host of {inventory} was checked; see --limit and hosts.yml")
    names = [host.name for host in hosts]
    evidence = seen.verdicts.by_host
    with shown() as on_event:
        findings, examined = examine(fleet, args.limit, on_event)
    # After the doctor: the check of the edge's limit makes answers that it would take for a client's.
    checks = (*host_results(result, evidence, names), *edge_results(evidence.values(), show_edge))
    edges = [found.edge for found in evidence.values() if found.edge]
    return SiteReport(
        site=edges[0].server_name if edges else inventory.name,
        versions=_versions(),
        hosts=describe_hosts(hosts, seen),
        instances=describe_instances(hosts, seen),
        bundle=_bundle(seen, names),
        run=None,
        checks=checks,
        findings=tuple(findings),
        examined=examined,
        capacity=describe_capacity(names, seen),
        limit=args.limit or "",
        secrets=_secrets(args, seen),
    )


def _with_bench(found: SiteReport, args: argparse.Namespace, load: Load, seen: SiteCollector) -> SiteReport:
    """Measure; that nothing could be measured belongs on the page too."""
    try:
        return replace(found, bench=measure(target_of(args, seen.verdicts.by_host), load))
    except (InputError, RunError) as failed:
        return replace(found, bench_problem=str(failed))


def _bundle(seen: SiteCollector, hosts: list[str]) -> BundleFacts:
    for host in hosts:
        facts = seen.facts(host)
        if facts.get("bundle") and facts.get("trust"):
            return describe_bundle(Path(str(facts["bundle"])), Path(str(facts["trust"])))
    return BundleFacts(problem="no host said which bundle it is installed from; see stack_bundle_path")


def _secrets(args: argparse.Namespace, seen: SiteCollector) -> tuple[str, ...]:
    """Return the keys that were used; the page must not contain them, whatever a host returns."""
    files = [found.edge.key_file for found in seen.verdicts.by_host.values() if found.edge and found.edge.key_file]
    keys = []
    for file in [*files, *([args.key_file] if args.key_file else [])]:
        try:
            keys.append(key_of(file.expanduser()))
        except InputError:
            continue  # the checks say so
    return tuple(keys)


def _versions() -> dict[str, str]:
    tools = {name: metadata.version(name) for name in _TOOLS}
    return {"rackserve": __version__, "Python": platform.python_version(), **tools}
