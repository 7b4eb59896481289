"""Clients that ask until they are told to stop, and then end what they have asked."""

from __future__ import annotations

import asyncio
import errno
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import httpx

from testing.traffic._answers import OK, Reason, Verdict, judge
from testing.traffic._record import Record
from testing.traffic._requests import mixed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from testing.traffic._requests import Asked, Mix

_CONNECT_S: Final = 10.0
# After a request that failed at once, so that a dead edge is not asked a thousand times a second.
_AFTER_FAILURE_S: Final = 0.2


@dataclass(frozen=True)
class Target:
    """The edge: scheme, address and port, the name that its certificate has, and a client's key."""

    url: str
    server_name: str = ""
    verify: ssl.SSLContext | bool = field(default=True, repr=False)
    key: str = field(default="", repr=False)


class _Reading:
    """The part of a body that has come, and when its first token did."""

    def __init__(self, *, streamed: bool) -> None:
        self.began, self.data, self.first, self._streamed = time.perf_counter(), bytearray(), 0.0, streamed

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self.began

    def take(self, data: bytes) -> None:
        """Keep a piece."""
        self.data += data
        if not self.first and (not self._streamed or _has_token(bytes(self.data))):
            self.first = self.seconds


def _has_token(data: bytes) -> bool:
    for line in data.decode(errors="replace").splitlines()[:8]:
        try:
            (choice, *_) = json.loads(line.removeprefix("data:"))["choices"]
        except (ValueError, KeyError, TypeError):
            continue
        delta = choice.get("delta") or {}
        if choice.get("text") or delta.get("content") or delta.get("tool_calls"):
            return True
    return False


async def run_clients(
    target: Target,
    mix: Mix,
    note: Callable[[Record], object],
    stop: asyncio.Event,
    *,
    clients: int = 4,
    timeout_s: float = 180.0,
    pause_s: float = 0.0,
    seed: int = 0,
) -> None:
    """Have clients ask one request after the other until `stop` is set; what runs then is read to its end.

    Every second client opens a connection for each request; the others keep theirs, as most libraries do.

    Args:
        target: who is asked.
        mix: what is asked.
        note: told of every request once it has ended.
        stop: ends the clients.
        clients: how many.
        timeout_s: seconds after which a request counts as failed.
        pause_s: seconds between an answer and the client's next request.
        seed: of the requests.
    """
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            asks = _Client(number, target, timeout_s, keeps=number % 2 == 0)
            group.create_task(asks.until(stop, mix, seed, pause_s, note))


class _Client:
    def __init__(self, number: int, target: Target, timeout_s: float, *, keeps: bool) -> None:
        self._number, self._target, self._timeout_s, self._keeps = number, target, timeout_s, keeps

    async def until(
        self, stop: asyncio.Event, mix: Mix, seed: int, pause_s: float, note: Callable[[Record], object]
    ) -> None:
        name, key = self._target.server_name, self._target.key
        client = httpx.AsyncClient(
            base_url=self._target.url,
            verify=self._target.verify,
            timeout=httpx.Timeout(None, connect=_CONNECT_S),  # each request has an end of its own
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=int(self._keeps)),
            trust_env=False,  # no proxy between us and what is measured
            headers={**({"Host": name} if name else {}), **({"Authorization": f"Bearer {key}"} if key else {})},
        )
        async with client:
            for asked in mixed(mix, f"{seed} {self._number}"):
                if stop.is_set():
                    return
                record = await self._ask(client, asked)
                note(record)
                pause = pause_s if record.ok else max(pause_s, _AFTER_FAILURE_S)
                if pause:
                    await _sleep(pause, stop)

    async def _ask(self, client: httpx.AsyncClient, asked: Asked) -> Record:
        """Ask once; whatever goes wrong is a record, never an exception."""
        start, reading = time.time(), _Reading(streamed=asked.kind.streamed)
        status, verdict = 0, Verdict()
        name = self._target.server_name
        try:
            async with asyncio.timeout(self._timeout_s):
                extensions = {"sni_hostname": name} if name else {}
                async with client.stream("POST", asked.path, json=asked.body, extensions=extensions) as answer:
                    status = answer.status_code
                    async for data in answer.aiter_bytes():
                        reading.take(data)
            verdict = judge(asked, status, reading.data.decode(errors="replace"))
        except (TimeoutError, httpx.TimeoutException) as error:
            verdict = Verdict(Reason.TIMEOUT, f"{type(error).__name__} after {reading.seconds:.1f} s, status {status}")
        except httpx.HTTPError as error:
            verdict = Verdict(_why(error, status), f"{type(error).__name__}: {error}")
        return Record(
            client=self._number,
            kind=asked.kind.value,
            model=asked.model,
            start=start,
            first=round(reading.first if status == OK else 0.0, 4),
            end=round(reading.seconds, 4),
            kept=self._keeps,
            status=status,
            reason=str(verdict.reason),
            detail=verdict.detail,
            tokens=verdict.tokens,
            fingerprint=verdict.fingerprint,
            request=verdict.request,
        )


def _why(error: httpx.HTTPError, status: int) -> Reason:
    if isinstance(error, httpx.ConnectError):
        return Reason.REFUSED if _errno(error) == errno.ECONNREFUSED else Reason.NO_CONNECTION
    return Reason.BROKEN_WITHIN if status else Reason.BROKEN_BEFORE


def _errno(error: BaseException) -> int | None:
    """Return the number of the system's error below others; of several attempts that of the first."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:
            return seen.errno
        if isinstance(seen, BaseExceptionGroup):
            return _errno(seen.exceptions[0])
        seen = seen.__cause__ or seen.__context__
    return None


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
