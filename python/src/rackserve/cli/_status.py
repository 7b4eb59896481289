"""`rackserve status`: the fleet's instances, what they run on and how busy they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rackserve.checks.evidence import host_results
from rackserve.checks.fleet import gather_evidence
from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_site_options
from rackserve.cli._progress import format_table, shown
from rackserve.errors import InputError
from rackserve.run import load_fleet, resolve_inventory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

# What the check `rotation` of an edge brings, by label.
Marks = Mapping[str, Mapping[str, Any]]
_LOAD = ("waiting", "running", "kv_use", "tokens_per_s")
_HEALTH = ("health", "health_for_s", "last_token_age_s", "probe_restarts")
_COLUMNS = ("instance", "device", "release", "state", *_LOAD, *_HEALTH, "edge", "drained_for_s", "drained_by")
_HEALTHY = {"ready", "busy"}
_HEAD = (
    *("HOST", "INSTANCE", "GPU", "RELEASE", "STATE", "QUEUE", "RUNNING", "KV USE", "TOKENS/S"),
    *("HEALTH", "FOR", "LAST TOKEN", "RESTARTS", "EDGE"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_site_options(parser, "the table")
    parser.set_defaults(handler=status)


def status(args: argparse.Namespace) -> int:
    """Run the command."""
    inventory = resolve_inventory(args.inventory)
    fleet = load_fleet(inventory)
    with shown() as on_event:
        result, evidence = gather_evidence(inventory, ["status"], args.limit, on_event)
    in_run = {host.name for host in result.hosts}
    hosts = [host.name for host in fleet.hosts if host.name in in_run and "vllm_hosts" in host.groups]
    if not hosts:
        raise InputError(f"no vLLM host of {inventory} was checked; see --limit and the group vllm_hosts")
    verdicts = host_results(result, {name: evidence[name] for name in hosts if name in evidence}, hosts)
    unreachable = {failure.host for failure in result.unreachable}
    marks = [_marks(evidence[name].rows) for name in evidence if any("marks" in row for row in evidence[name].rows)]
    rows = []
    for host in hosts:
        if host in evidence:
            rows += [
                _row(host, {**row, **_rotation(f"{host}:{row['instance']}", marks)})
                for row in evidence[host].rows
                if "instance" in row
            ]
        else:
            rows.append(_row(host, {"state": "unreachable" if host in unreachable else "unknown"}))
    ok = bool(rows) and all(row["state"] == "answering" and row["health"] in _HEALTHY for row in rows)
    problems = [f"{check.host}: {check.detail}" for check in verdicts if not check.ok]
    if args.json:
        print(json.dumps({"ok": ok, "instances": rows, "problems": problems}, indent=2))
    else:
        print(format_table(_HEAD, [_cells(row) for row in rows]))
        for problem in problems:
            print(problem)
    return EXIT_OK if ok else EXIT_CHECK_FAILED


def _row(host: str, data: Mapping[str, object]) -> dict[str, object]:
    return {"host": host, **{column: data.get(column) for column in _COLUMNS}}


def _marks(rows: Iterable[Mapping[str, object]]) -> Marks:
    """Return the instances that are not in full rotation at an edge: weight, by, run and seconds, by label."""
    found = next((row["marks"] for row in rows if "marks" in row), None)
    return dict(found) if isinstance(found, Mapping) else {}


def _rotation(label: str, marks: Sequence[Marks]) -> dict[str, object]:
    """Return whether an instance gets requests: in, out, out of some of several edges, or a share; empty without."""
    found = [of_edge[label] for of_edge in marks if label in of_edge]
    if not marks:
        return dict.fromkeys(("edge", "drained_for_s", "drained_by"))
    weights = [int(mark["weight"]) for mark in found] + [100] * (len(marks) - len(found))
    edge = "in" if not found else "out" if not any(weights) else f"{min(weights)} %" if all(weights) else "partly out"
    by = sorted({f"{mark['by']} {mark['run']}".strip() for mark in found})
    ages = [float(mark["seconds"]) for mark in found]
    return {"edge": edge, "drained_for_s": max(ages, default=None), "drained_by": ", ".join(by) or None}


def _cells(row: Mapping[str, object]) -> list[str]:
    cells = ["-" if row[key] is None else str(row[key]) for key in ("host", "instance", "device", "release", "state")]
    cells += [_number(row[key], "{:.0f}") for key in ("waiting", "running")]
    cells += [_number(row["kv_use"], "{:.1%}"), _number(row["tokens_per_s"], "{:.1f}"), str(row["health"] or "-")]
    cells += [_span(row[key]) for key in ("health_for_s", "last_token_age_s")]
    edge = str(row["edge"] or "-")
    if row["drained_by"] is not None:
        edge += f" {_span(row['drained_for_s'])} by {row['drained_by']}"
    return [*cells, _number(row["probe_restarts"], "{:.0f}"), edge]


def _span(seconds: object) -> str:
    """Return a span of time in its two largest units."""
    if not isinstance(seconds, (int, float)):
        return "-"
    minutes, left = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def _number(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, (int, float)) else "-"
