"""A client that sends more than it may, whatever it is told; prints what that was.

Arguments: address of the edge, requests a second, seconds at most (SIGTERM ends it before). The key comes on stdin.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
import time
from collections import Counter

CONNECTIONS = 64
BODY = json.dumps({"model": "paced", "messages": [{"role": "user", "content": "a"}], "max_tokens": 32, "stream": True})


async def answered(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end and return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        while await reader.readuntil(b"\r\n") != b"0\r\n":
            pass  # an event or an error is lines, none of which is "0"
        await reader.readexactly(2)
    else:
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
    return int(head.split(b" ", 2)[1])


async def main(address: str, rate: float, seconds: float, key: str) -> None:
    """Send at the rate over connections that are kept, so that few handshakes are in it."""
    loop, told = asyncio.get_running_loop(), Counter[str]()
    context = ssl._create_unverified_context()  # noqa: S323, SLF001 - who the edge is does not matter here
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: rackserve.lab\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
    ).encode()
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(None)
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    tasks: set[asyncio.Task[None]] = set()

    async def one() -> None:
        link = await free.get()
        try:
            link = link or await asyncio.open_connection(address, 443, ssl=context)
            link[1].write(request)
            told[str(await answered(link[0]))] += 1
        except (OSError, asyncio.IncompleteReadError):
            told["no answer"] += 1
            link = None
        free.put_nowait(link)

    began = time.monotonic()
    sent = 0
    while not ending.is_set() and (passed := time.monotonic() - began) < seconds:
        for _ in range(sent, int(passed * rate)):
            tasks.add(task := loop.create_task(one()))
            task.add_done_callback(tasks.discard)
            sent += 1
        await asyncio.sleep(0.005)
    passed = time.monotonic() - began
    await asyncio.wait(tasks, timeout=5) if tasks else None
    print(json.dumps({"sent": sent, "seconds": passed, "told": told}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.stdin.read().strip()))
