"""Slow clients of the edge, run on its own host, and one that asks for its health meanwhile; prints what they saw.

Arguments: where they stop (hello, header, body or read), how many there are, from how many addresses, and seconds after
the last was opened until those that are left are called still open. A key of the edge comes on stdin.
"""

from __future__ import annotations

import http.client
import itertools
import json
import resource
import select
import socket
import ssl
import sys
import threading
import time

EDGE = ("127.0.0.1", 443)
CONTEXT = ssl._create_unverified_context()  # noqa: S323, SLF001 - who the edge is does not matter here
# The record and the handshake header of a ClientHello of 508 bytes, and no more of it.
HALF_A_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(20)
# Each second, a little more of what nginx waits for.
TRICKLE = {"hello": b"", "header": b"X-More: a\r\n", "body": b"a", "read": b""}


def opened(phase: str, source: str, key: str) -> socket.socket:
    """Open a connection and leave it half done."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.settimeout(10)
    link.bind((source, 0))
    link.connect(EDGE)
    if phase == "hello":
        link.sendall(HALF_A_HELLO)
        return link
    link = CONTEXT.wrap_socket(link)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
    if phase == "read":
        body = json.dumps({"model": "small", "max_tokens": 64, "pad": 65536})
        head += f"Content-Length: {len(body)}\r\n\r\n{body}"
    elif phase == "body":
        head += 'Content-Length: 1000\r\n\r\n{"model": "'
    link.sendall(head.encode())
    return link


def is_closed(link: socket.socket, phase: str) -> bool:
    """Say whether the edge has given a connection up; what the slow reader was sent it does not read."""
    poll = select.poll()
    poll.register(link, select.POLLHUP | select.POLLERR | select.POLLRDHUP)
    if poll.poll(0):
        return True
    try:
        link.setblocking(False)
        if phase != "read" and link.recv(65536):
            return True  # an answer: the edge has told why it gives up
        link.sendall(TRICKLE[phase])
    except (ssl.SSLWantReadError, BlockingIOError):
        link.sendall(TRICKLE[phase])
    except OSError:
        return True
    return False


def watch_health(stop: threading.Event, seconds: list[float], failures: list[str]) -> None:
    """Ask for the edge's health five times a second, from an address of its own."""
    while not stop.wait(0.2):
        began = time.monotonic()
        try:
            link = http.client.HTTPSConnection(*EDGE, context=CONTEXT, timeout=10, source_address=("127.0.0.2", 0))
            link.request("GET", "/healthz")
            if link.getresponse().status != http.client.OK:
                failures.append("status")
            link.close()
        except OSError as error:
            failures.append(repr(error))
        seconds.append(time.monotonic() - began)


def main(phase: str, count: int, addresses: int, limit: float, key: str) -> dict[str, object]:
    """Open the connections, hold them, and say how long the edge held them."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    stop = threading.Event()
    seconds: list[float] = []
    failures: list[str] = []
    watcher = threading.Thread(target=watch_health, args=(stop, seconds, failures))
    watcher.start()
    sources = itertools.cycle(f"127.1.{n // 250}.{n % 250 + 1}" for n in range(addresses))
    held: dict[socket.socket, float] = {}
    lives: list[float] = []
    refused = peak = 0
    last, todo = time.monotonic(), count
    while todo or (held and time.monotonic() - last < limit):
        for _ in range(min(todo, 512)):
            todo -= 1
            try:
                link = opened(phase, next(sources), key)
                held[link] = last = time.monotonic()
            except OSError:
                refused += 1
        peak = max(peak, len(held))
        for link, since in list(held.items()):
            try:
                closed = is_closed(link, phase)
            except OSError:
                closed = True
            if closed:
                lives.append(time.monotonic() - since)
                del held[link]
                link.close()
        time.sleep(0 if todo else 0.5)
    stop.set()
    watcher.join()
    return {
        "opened": count - refused,
        "refused": refused,
        "peak": peak,
        "still_open": len(held),
        "longest_life": round(max(lives, default=0), 1),
        "health_asked": len(seconds),
        "health_failed": failures[:3],
        "health_slowest": round(max(seconds), 3),
    }


if __name__ == "__main__":
    where, many, spread, until = sys.argv[1:]
    print(json.dumps(main(where, int(many), int(spread), float(until), sys.stdin.read().strip())))
