"""`rackserve bench`: what clients of a site get: time to first token, between tokens, tokens per second."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rackserve import bench as load_bench
from rackserve._checks._edge import key_of, tls_context
from rackserve._fleet import load_fleet, resolve_inventory
from rackserve.bench import BenchResult, Distribution, Load, Pattern, Target
from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._progress import format_table
from rackserve.cli._verify import gather_evidence
from rackserve.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from rackserve._checks._evidence import Evidence
    from rackserve._checks._types import EdgeTarget
    from rackserve.bench import Sample

_HEAD: Final = ("LOAD", "ANSWERED", "TOKENS/S", "WHAT (ms)", "P50", "P95", "P99", "MAX", "OF")
_FEW: Final = 100


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("bench", help="measure what clients of a site get", description=__doc__)
    parser.add_argument("-i", "--inventory", metavar="DIR", help="the site's inventory (default: the lab's)")
    add_load_options(parser)
    parser.add_argument("--json", action="store_true", help="print the measurement as JSON")
    parser.set_defaults(handler=bench)


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Add what says whom to ask and how much; `rackserve report --bench` takes the same."""
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--edge", metavar="HOST", help="through this edge (the inventory's first)")
    whom.add_argument(
        "--direct", metavar="HOST:INSTANCE", help="past the edge, where the instance lets this machine in"
    )
    parser.add_argument("--model", metavar="NAME", help="a name that clients use (the first that is served)")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="a client's key (stack_client_key_file)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--concurrency", metavar="N,N,...", help="requests at once, one level after the other (1,2,4)")
    how.add_argument("--rate", metavar="R,R,...", help="requests per second instead, at random moments (Poisson)")
    defaults = Load()
    for option, default, says in (
        ("--requests", defaults.requests, "requests of a level"),
        ("--warmup", defaults.warmup, "requests before the first level, not counted"),
        ("--seconds", int(defaults.seconds), "no request of a level is started after these"),
        ("--input-words", defaults.input_words, "words of a question"),
        ("--output-tokens", defaults.output_tokens, "tokens of an answer"),
        ("--seed", defaults.seed, "another seed, other questions"),
    ):
        parser.add_argument(option, type=int, default=default, metavar="N", help=f"{says} ({default})")


def bench(args: argparse.Namespace) -> int:
    """Run the command: exit 0 when every request was answered, 1 when some were not, 2 when nothing was measured."""
    load = load_of(args)
    inventory = resolve_inventory(args.inventory)
    load_fleet(inventory)
    _, evidence = gather_evidence(inventory, "status", None)
    result = measure(target_of(args, evidence), load)
    print(json.dumps({"ok": result.ok, **asdict(result)}, indent=2) if args.json else as_text(result))
    return EXIT_OK if result.ok else EXIT_CHECK_FAILED


def load_of(args: argparse.Namespace) -> Load:
    """Return the load that the options ask for.

    Raises:
        InputError: when they ask for none, or for too much.
    """
    pattern = Pattern.POISSON if args.rate else Pattern.CLOSED
    listed = args.rate or args.concurrency
    options: dict[str, Any] = {"levels": _numbers(listed)} if listed else {}
    return Load(
        pattern=pattern,
        requests=args.requests,
        warmup=args.warmup,
        seconds=float(args.seconds),
        input_words=args.input_words,
        output_tokens=args.output_tokens,
        seed=args.seed,
        **options,
    )


def _numbers(listed: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in listed.split(","))
    except ValueError:
        raise InputError(f"{listed!r} is no list of numbers; give them as in 1,2,4") from None


def target_of(args: argparse.Namespace, evidence: Mapping[str, Evidence]) -> Target:
    """Return who is asked, with what the hosts' evidence says of them.

    Raises:
        InputError: when there is no such edge or instance, or no key.
    """
    if args.direct:
        known = {f"{host}:{one.name}": one for host, found in evidence.items() for one in found.instances}
        if args.direct not in known:
            raise InputError(f"there is no instance {args.direct!r}; there are {', '.join(known) or 'none'}")
        chosen = known[args.direct]
        return Target(args.direct, chosen.url, args.model or chosen.served_names[0], verify=False)
    edges = {host: found.edge for host, found in evidence.items() if found.edge}
    if not edges or (args.edge and args.edge not in edges):
        raise InputError(
            f"there is no edge {args.edge or ''}".rstrip()
            + f" that answers over SSH; there are {', '.join(edges) or 'none'}"
        )
    edge = edges[args.edge or next(iter(edges))]
    return _through(edge, args.model, args.key_file)


def _through(edge: EdgeTarget, model: str | None, key_file: Path | None) -> Target:
    if not (model or edge.model):
        raise InputError("no instance of this site generates text, so there is nothing to measure")
    key = key_of(key_file.expanduser() if key_file else edge.key_file)
    try:
        context = tls_context(edge)
    except OSError as error:
        raise InputError(f"the CA file {edge.ca_file} cannot be used: {error}; set stack_ca_file") from error
    return Target(edge.host, f"https://{edge.address}:{edge.port}", model or edge.model, edge.server_name, context, key)


def measure(target: Target, load: Load) -> BenchResult:
    """Run the load, with progress on stderr."""
    return asyncio.run(load_bench.run_bench(target, load, _Meter(target.name)))


class _Meter:
    """One line for each level, and on a terminal how far it is."""

    def __init__(self, target: str) -> None:
        self._live = sys.stderr.isatty()
        self._target, self._name, self._total, self._done, self._wrong = target, "", 0, 0, 0

    def level(self, name: str, total: int) -> None:
        """Begin a level."""
        self._name, self._total, self._done, self._wrong = name, total, 0, 0
        print(f"Asking {self._target}, {name}: {total} requests", file=sys.stderr, flush=True)

    def sample(self, sample: Sample) -> None:
        """Count a request that has ended."""
        self._done += 1
        self._wrong += not sample.ok
        if self._live:
            end = "\n" if self._done == self._total else "\r"
            print(f"  {self._done} of {self._total}, {self._wrong} failed", end=end, file=sys.stderr, flush=True)


def as_text(result: BenchResult) -> str:
    """Return the table for a reader, and what it must know to read it."""
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


def metrics(level: load_bench.Level) -> tuple[tuple[str, Distribution | None], ...]:
    """Return the four times of a level with their names."""
    return (
        ("time to first token", level.ttft_ms),
        ("between tokens", level.itl_ms),
        ("per output token", level.tpot_ms),
        ("end to end", level.e2e_ms),
    )


def notes(result: BenchResult) -> list[str]:
    """Return the sentences without which the numbers mislead."""
    said = []
    if result.warmup_failed:
        said.append(f"warm-up: {result.warmup_failed} of {result.load.warmup} requests failed")
    for level in result.levels:
        told = ", ".join(f"{count} x {what}" for what, count in level.errors.items())
        if told:
            said.append(f"{level.load:g} {result.unit}: {told}; the first: {level.example}")
        if not level.tokens_counted_by_engine:
            said.append(f"{level.load:g} {result.unit}: no usage was told, so tokens are chunks with text")
    if any(level.answered < _FEW for level in result.levels):
        said.append(f"p99 of fewer than {_FEW} values lies close to their largest")
    return said


def _cells(found: Distribution | None) -> tuple[str, ...]:
    if found is None:
        return ("-",) * 5
    return (*(f"{value:.1f}" for value in (found.p50, found.p95, found.p99, found.max)), str(found.n))
