"""What the tests of the edge share: its clients, and stand-ins for the engines behind it."""

from __future__ import annotations

import itertools
import json
import shlex
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from testinfra.host import Host

CLIENTS = Path(__file__).with_name("edge_clients.py").read_text(encoding="utf-8")
STAND_INS = Path(__file__).with_name("stand_in_engines.py").read_text(encoding="utf-8")
ROOMY, TIGHT = "rsk-roomy", "rsk-tight"
ENGINES = (7001, 7002, 7003, 7004)
# Requests from one address share a limit; every test sends from addresses of its own.
_addresses = (f"127.0.{high}.{low}" for high, low in itertools.product(range(1, 250), range(1, 250)))


def address() -> str:
    """Give an address of the loopback that nothing was sent from in this run."""
    return next(_addresses)


def request(
    method: str,
    path: str,
    body: object = None,
    *,
    key: str | None = ROOMY,
    headers: dict[str, str] | None = None,
    source: str | None = None,
    start: float = 0,
) -> dict[str, Any]:
    """Describe a request for edge_clients.py."""
    text = body if body is None or isinstance(body, str) else json.dumps(body)
    given = {"Authorization": f"Bearer {key}"} if key else {}
    if text is not None:
        given["Content-Type"] = "application/json"
    return {
        "method": method,
        "path": path,
        "body": text,
        "headers": {**given, **(headers or {})},
        "source": source or address(),
        "start": start,
    }


def completion(model: str = "small", *, key: str | None = ROOMY, **asked: object) -> dict[str, Any]:
    """Describe a request for a completion; a stand-in engine reads `max_tokens`, `pause` and `fail`."""
    return request("POST", "/v1/completions", {"model": model, **asked}, key=key)


def _clients(requests: Sequence[dict[str, Any]], *arguments: str) -> str:
    return f"printf %s {shlex.quote(json.dumps(requests))} | python3 -c {shlex.quote(CLIENTS)} {' '.join(arguments)}"


def ask(host: Host, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """Send requests from the edge's own host, one after the other."""
    return list(json.loads(host.check_output(_clients(requests))))


def together(host: Host, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send requests at once."""
    return list(json.loads(host.check_output(_clients(requests, "together"))))


@contextmanager
def in_flight(host: Host, requests: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Send requests at once and go on; the list has their answers when the block is left."""
    command = f"{_clients(requests, 'together')} > /run/answers"
    host.check_output(f"rm -f /run/answers && systemd-run --quiet --unit=clients sh -c {shlex.quote(command)}")
    answers: list[dict[str, Any]] = []
    try:
        time.sleep(4)  # until all have their first token
        yield answers
        while host.run("systemctl is-active clients").rc == 0:
            time.sleep(1)
        answers += json.loads(host.check_output("cat /run/answers"))
    finally:
        host.run("systemctl stop clients; systemctl reset-failed clients")


@contextmanager
def engines(host: Host, *ports: int) -> Iterator[None]:
    """Have stand-ins for engines listen."""
    chosen = " ".join(map(str, ports or ENGINES))
    host.check_output("rm -f /run/engines; touch /run/engines")
    host.check_output(f"systemd-run --quiet --unit=engines python3 -c {shlex.quote(STAND_INS)} {chosen}")
    try:
        host.check_output("sleep 1; systemctl reload nginx; sleep 1")  # it forgets which of them were down before
        yield
    finally:
        host.run("systemctl stop engines; systemctl reset-failed engines")


@contextmanager
def configured(host: Host, change: str, path: str = "/etc/nginx/nginx.conf") -> Iterator[None]:
    """Have nginx run with a change, made by sed, to what it reads: for controls, and for other settings."""
    host.check_output(f"cp --preserve {path} /run/nginx.kept")
    try:
        host.check_output(f"sed --in-place --regexp-extended {shlex.quote(change)} {path}")
        assert host.run(f"cmp {path} /run/nginx.kept").rc == 1, "the change is one"
        host.check_output("nginx -t -q && systemctl reload nginx && sleep 1")
        yield
    finally:
        host.check_output(f"mv /run/nginx.kept {path} && systemctl reload nginx && sleep 1")


def seen(host: Host) -> list[tuple[int, str, str, dict[str, str]]]:
    """Return port, method, path and headers of every request that an engine has read."""
    lines = host.check_output("cat /run/engines").splitlines()
    return [(port, method, path, headers) for port, method, path, headers in map(json.loads, lines)]


def error(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the error of an answer in OpenAI's shape."""
    found: dict[str, Any] = json.loads(answer["text"])["error"]
    assert set(found) == {"message", "type", "code", "param"}
    return found
