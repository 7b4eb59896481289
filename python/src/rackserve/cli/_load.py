"""The options of a load, its target, and the measurement with its progress: `bench` and `report --bench`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackserve.bench import BenchResult, Load, Pattern, Target, run_bench
from rackserve.checks.edge import key_of, tls_context
from rackserve.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from rackserve.bench import Sample
    from rackserve.checks import EdgeTarget
    from rackserve.checks.evidence import Evidence


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of target and load; `rackserve report --bench` has the same."""
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
        raise InputError(f"{listed!r} is not a list of numbers; give them as in 1,2,4") from None


def target_of(args: argparse.Namespace, evidence: Mapping[str, Evidence]) -> Target:
    """Return the target, from the evidence of the hosts.

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
    return asyncio.run(run_bench(target, load, _Meter(target.name)))


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
