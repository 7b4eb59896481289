"""`rackserve bench`: what clients of a site get: time to first token, between tokens, tokens per second."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rackserve.checks.fleet import gather_evidence
from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._load import add_load_options, load_of, measure, target_of
from rackserve.cli._options import add_inventory, add_json
from rackserve.cli._progress import format_table, shown
from rackserve.run import load_fleet, resolve_inventory

if TYPE_CHECKING:
    import argparse

    from rackserve.bench import BenchResult, Distribution, Level

_HEAD: Final = ("LOAD", "ANSWERED", "TOKENS/S", "WHAT (ms)", "P50", "P95", "P99", "MAX", "OF")
_FEW: Final = 100


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_inventory(parser)
    add_load_options(parser)
    add_json(parser, "the measurement")
    parser.set_defaults(handler=bench)


def bench(args: argparse.Namespace) -> int:
    """Run the command: exit 0 when every request was answered, 1 when some were not, 2 when nothing was measured."""
    load = load_of(args)
    inventory = resolve_inventory(args.inventory)
    load_fleet(inventory)
    with shown() as on_event:
        _, evidence = gather_evidence(inventory, ["status"], None, on_event)
    result = measure(target_of(args, evidence), load)
    print(json.dumps({"ok": result.ok, **asdict(result)}, indent=2) if args.json else as_text(result))
    return EXIT_OK if result.ok else EXIT_CHECK_FAILED


def as_text(result: BenchResult) -> str:
    """Return the table, and notes on how to read it."""
    rows = []
    for level in result.levels:
        first = [f"{level.load:g}", f"{level.answered} of {level.sent}", f"{level.output_tokens_per_s:.1f}"]
        for what, found in metrics(level):
            rows.append((*first, what, *_cells(found)))
            first = ["", "", ""]
    load = result.load
    title = (
        f"{result.model} through {result.target}, {load.pattern} loop, {result.unit}; {load.input_words} words in, "
        f"{load.output_tokens} tokens out, seed {load.seed}"
    )
    return "\n".join([title, "", format_table(_HEAD, rows), "", *notes(result)]).rstrip()


def metrics(level: Level) -> tuple[tuple[str, Distribution | None], ...]:
    """Return the four times of a level with their names."""
    return (
        ("time to first token", level.ttft_ms),
        ("between tokens", level.itl_ms),
        ("per output token", level.tpot_ms),
        ("end to end", level.e2e_ms),
    )


def notes(result: BenchResult) -> list[str]:
    """Return the sentences without which the numbers mislead."""
    found = []
    if result.warmup_failed:
        found.append(f"warm-up: {result.warmup_failed} of {result.load.warmup} requests failed")
    for level in result.levels:
        errors = ", ".join(f"{count} x {what}" for what, count in level.errors.items())
        if errors:
            found.append(f"{level.load:g} {result.unit}: {errors}; the first: {level.example}")
        if not level.tokens_counted_by_engine:
            found.append(f"{level.load:g} {result.unit}: no usage was reported, so tokens are chunks with text")
    if any(level.answered < _FEW for level in result.levels):
        found.append(f"p99 of fewer than {_FEW} values lies close to their largest")
    return found


def _cells(found: Distribution | None) -> tuple[str, ...]:
    if found is None:
        return ("-",) * 5
    return (*(f"{value:.1f}" for value in (found.p50, found.p95, found.p99, found.max)), str(found.n))
