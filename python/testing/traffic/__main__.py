"""Sends mixed requests through an edge until it is stopped (SIGTERM, SIGINT), and tells what came of them.

    cd python && python -m testing.traffic --url https://10.89.1.21 --server-name rackserve.lab --ca ca.crt \
        --key-file client.key --model smollm2 --adapter lora-one --output /tmp/traffic.jsonl

Requests that run when it is stopped are read to their end. Exit 0 when none failed, 1 when any did, 2 for bad options.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from testing.traffic import Mix, Record, Target, run_clients, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="testing.traffic", description="Sends mixed requests and counts what fails.")
    parser.add_argument("--url", required=True, help="of the edge, as https://10.89.1.21")
    parser.add_argument("--server-name", default="", help="the name in the edge's certificate")
    parser.add_argument("--ca", type=Path, help="certificate of the authority (default: none is checked)")
    parser.add_argument("--key-file", type=Path, help="a client's API key")
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", action="append", default=[], help="name of a LoRA adapter; may be repeated")
    parser.add_argument("--no-tools", action="store_true", help="send no tool calls")
    parser.add_argument("--most-tokens", type=int, default=256, help="longest answer but for tool calls")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds of a client between two requests")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds after which a request has failed")
    parser.add_argument("--requests", type=int, help="stop after so many have ended")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="file of one JSON line a request")
    return parser.parse_args(argv)


async def ask(options: argparse.Namespace) -> list[Record]:
    """Run the clients until a signal, or until there was enough."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.seconds:
        loop.call_later(options.seconds, stop.set)
    context = ssl.create_default_context(cafile=options.ca) if options.ca else False
    key = options.key_file.read_text(encoding="utf-8").strip() if options.key_file else ""
    target = Target(options.url, options.server_name, context, key)
    mix = Mix(options.model, tuple(options.adapter), tools=not options.no_tools, most_tokens=options.most_tokens)
    records: list[Record] = []
    with options.output.open("w", encoding="utf-8") as output:

        def note(record: Record) -> None:
            records.append(record)
            output.write(record.line())
            output.flush()
            if len(records) == options.requests:
                stop.set()

        await run_clients(
            target,
            mix,
            note,
            stop,
            clients=options.clients,
            timeout_s=options.timeout,
            pause_s=options.pause,
            seed=options.seed,
        )
    return records


def main(argv: Sequence[str] | None = None) -> int:
    summary = summarise(asyncio.run(ask(parse(argv))))
    print(summary.text())
    return int(summary.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
