"""What an edge costs: one load on an engine's own port and through the edge, by turns, as ratios.

    python python/tools/proxy_cost.py --direct http://192.0.2.11:8000 --edge https://192.0.2.21 --model chat
        --server-name fleet.example --ca-file ca.crt --key-file client.key

The model must have this one instance only, or the edge asks others too, and this machine must be one of its
`vllm_allowed_clients`. Times and tokens per second are defined as those of `rackserve bench` (docs/reference/bench.md),
whose client is not used: it needs 0.3 ms for a token, which is more than an edge does. A connection is open, and has
had a request, before it is timed. In a round both ways are measured, each first in every other round; a ratio is of two
figures of one round, and the table has the median of all rounds, the least and the largest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import ssl
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rackserve.bench import OK, Level, Load, Sample, Target, summarise
from rackserve.errors import RackserveError, RunError

WHATS: Final = ("TTFT p50, ms", "between tokens p95, ms", "tokens per second")
_STAGGER_S: Final = 0.01
_TURN_S: Final = 300


@dataclass(frozen=True)
class Turn:
    """One way, measured once."""

    level: Level
    client: float  # how busy it was, of one core

    @property
    def figures(self) -> tuple[float, float, float]:
        """The figures of WHATS."""
        first, between = self.level.ttft_ms, self.level.itl_ms
        if first is None or between is None:
            raise RunError("no request was answered with several tokens")
        return first.p50, between.p95, self.level.output_tokens_per_s


class Link:
    """One connection that is kept."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.target, self.reader, self.writer = target, reader, writer

    @classmethod
    async def to(cls, target: Target) -> Link:
        """Connect."""
        url = urlsplit(target.url)
        tls = target.verify if isinstance(target.verify, ssl.SSLContext) else None
        port = url.port or (443 if tls else 80)
        name = target.server_name if tls and target.server_name else None
        return cls(target, *await asyncio.open_connection(url.hostname, port, ssl=tls, server_hostname=name))

    async def ask(self, question: str, tokens: int) -> Sample:
        """Send one chat and read its stream to the end.

        Raises:
            RunError: it was not answered whole.
        """
        body = json.dumps(self.target.body(question, tokens)).encode()
        host = self.target.server_name or urlsplit(self.target.url).netloc
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        if self.target.key:
            head += f"Authorization: Bearer {self.target.key}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        start, times, done = time.perf_counter(), list[float](), False
        self.writer.write(head.encode() + body)
        status = (await self.reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
        if status != b"200":
            raise RunError(f"{self.target.name} answered {status.decode()}")
        pending = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            *events, pending = (pending + (await self.reader.readexactly(size + 2))[:-2]).split(b"\n\n")
            now = time.perf_counter() - start
            for event in events:
                data = event.removeprefix(b"data: ")
                if data == b"[DONE]":
                    done = True
                elif (choices := json.loads(data).get("choices")) and choices[0]["delta"].get("content"):
                    times.append(now)
        await self.reader.readexactly(2)
        if not done or len(times) < 2:  # noqa: PLR2004 - what is between two tokens is measured
            raise RunError(f"a stream of {self.target.name} had {len(times)} tokens and {'an' if done else 'no'} end")
        gaps = tuple(after - before for before, after in itertools.pairwise(times))
        return Sample(OK, "", times[0], times[-1], time.perf_counter() - start, gaps, output_tokens=tokens)

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def turn(target: Target, load: Load) -> Turn:
    """Measure one way with so many streams at once, each of so many requests."""
    streams, questions = int(load.levels[0]), load.questions(f"{load.levels[0]:g}")
    samples: list[Sample] = []
    starts: list[float] = []

    async def client(number: int) -> None:
        # Not all at one moment, as no clients are.
        await asyncio.sleep(number * _STAGGER_S)
        link = await Link.to(target)
        try:
            await link.ask(next(questions), load.output_tokens)
            starts.append(time.perf_counter())
            samples.extend([await link.ask(next(questions), load.output_tokens) for _ in range(load.requests)])
        finally:
            await link.close()

    began, used = time.perf_counter(), time.process_time()
    try:
        async with asyncio.timeout(_TURN_S), asyncio.TaskGroup() as clients:
            for number in range(streams):
                clients.create_task(client(number))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    ended = time.perf_counter()
    level = summarise(load.levels[0], samples, ended - min(starts))
    return Turn(level, (time.process_time() - used) / (ended - began))


async def measure(ways: tuple[Target, Target], load: Load, rounds: int, alone: int) -> dict[float, list[list[Turn]]]:
    """Return the turns of both ways by level, a pair a round; a stream that is alone sends `alone` requests."""
    found: dict[float, list[list[Turn]]] = {level: [] for level in load.levels}
    for number in range(rounds):
        for level in load.levels:
            turns: dict[int, Turn] = {}
            for way in (0, 1) if number % 2 == 0 else (1, 0):
                # Questions of their own, so that no engine knows a prompt from the other way.
                requests = alone if level == 1 else load.requests
                asked = replace(load, levels=(level,), requests=requests, seed=2 * number + way)
                turns[way] = await turn(ways[way], asked)
            found[level].append([turns[0], turns[1]])
    return found


def table(found: dict[float, list[list[Turn]]]) -> str:
    """Write the figures as a table for docs."""
    lines = ["| streams | what | direct | edge | edge ÷ direct | from, to |", "|---|---|---|---|---|---|"]
    for level, pairs in found.items():
        for place, what in enumerate(WHATS):
            direct, edge = (statistics.median(pair[way].figures[place] for pair in pairs) for way in (0, 1))
            ratios = [pair[1].figures[place] / pair[0].figures[place] for pair in pairs]
            middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
            lines.append(f"| {level:g} | {what} | {direct:.1f} | {edge:.1f} | {middle:.3f} | {least:.3f}, {most:.3f} |")
        busy = " | ".join(f"{max(pair[way].client for pair in pairs):.0%}" for way in (0, 1))
        lines.append(f"| {level:g} | of a core, used by the client | {busy} | | |")
    return "\n".join(lines)


def targets(asked: argparse.Namespace) -> tuple[Target, Target]:
    """Return the engine itself and the edge."""
    context: ssl.SSLContext | bool = False
    if asked.edge.startswith("https:"):
        context = ssl.create_default_context(cafile=asked.ca_file)
    key = asked.key_file.read_text(encoding="utf-8").strip() if asked.key_file else None
    direct = Target("the engine", asked.direct, asked.model, verify=False)
    return direct, Target("the edge", asked.edge, asked.model, asked.server_name, context, key)


def main(argv: list[str] | None = None) -> int:
    """Print the table; exit 2 when a request was not answered, since then nothing was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--direct", required=True, metavar="URL", help="of the instance's own port")
    parser.add_argument("--edge", required=True, metavar="URL")
    parser.add_argument("--server-name", default="", help="of the edge's certificate")
    parser.add_argument("--ca-file", type=Path, help="authority of the edge (the system's)")
    parser.add_argument("--key-file", type=Path, help="a client's key")
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64], help="at once (1 16 64)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4, help="of each stream in a turn (4)")
    parser.add_argument("--alone", type=int, default=10, help="requests of a stream that is alone (10)")
    parser.add_argument("--output-tokens", type=int, default=32)
    asked = parser.parse_args(argv)
    try:
        levels = tuple(map(float, asked.streams))
        load = Load(levels=levels, requests=asked.requests, output_tokens=asked.output_tokens)
        found = asyncio.run(measure(targets(asked), load, asked.rounds, asked.alone))
    except (RackserveError, OSError, EOFError, TimeoutError) as error:
        print(f"proxy_cost: nothing was measured: {error or type(error).__name__}", file=sys.stderr)
        return 2
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
