"""Sends a load, level by level, and stops by itself."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Final, Protocol

import httpx

from rackserve.bench._load import Load, Pattern, Target
from rackserve.bench._result import BenchResult, Level, summarise
from rackserve.bench._stream import ask
from rackserve.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackserve.bench._stream import Sample

_CONNECT_S: Final = 10.0
_MOST_PAUSE_S: Final = 10.0


class Progress(Protocol):
    """Progress callbacks of a measurement."""

    def level(self, name: str, total: int) -> None:
        """A level begins."""
        ...

    def sample(self, sample: Sample) -> None:
        """A request has ended."""
        ...


async def run_bench(target: Target, load: Load, progress: Progress) -> BenchResult:
    """Warm up, then run every level.

    Raises:
        RunError: when no request of the warm-up was answered; the message has the first error.
    """
    started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    client = httpx.AsyncClient(
        base_url=target.url,
        verify=target.verify,
        timeout=httpx.Timeout(None, connect=_CONNECT_S),  # a level's own end bounds every request
        limits=httpx.Limits(max_connections=load.most_open, max_keepalive_connections=load.most_open),
        trust_env=False,  # no proxy between us and what is measured
        headers={
            **({"Host": target.server_name} if target.server_name else {}),
            **({"Authorization": f"Bearer {target.key}"} if target.key else {}),
        },
    )
    async with client:
        failed = await _warm_up(client, target, load, progress)
        levels = [await _level(client, target, load, level, progress) for level in load.levels]
    return BenchResult(target.name, target.model, started, load, failed, tuple(levels))


async def _warm_up(client: httpx.AsyncClient, target: Target, load: Load, progress: Progress) -> int:
    progress.level("warm-up", load.warmup)
    until = asyncio.get_running_loop().time() + load.seconds + load.grace
    questions = load.questions("warm-up")

    async def one() -> Sample:
        sample = await ask(client, target, next(questions), load.output_tokens, until)
        progress.sample(sample)
        return sample

    samples = await asyncio.gather(*(one() for _ in range(load.warmup)))
    if not any(sample.ok for sample in samples):
        first = samples[0]
        raise RunError(
            f"nothing was measured: none of {len(samples)} requests of the warm-up to {target.name} for the model "
            f"{target.model!r} was answered; the first: {first.outcome}: {first.detail}"
        )
    return sum(not sample.ok for sample in samples)


async def _level(client: httpx.AsyncClient, target: Target, load: Load, level: float, progress: Progress) -> Level:
    loop = asyncio.get_running_loop()
    questions = load.questions(f"{load.pattern} {level:g}")
    start = loop.time()
    closes, until = start + load.seconds, start + load.seconds + load.grace
    samples: list[Sample] = []

    async def one() -> Sample:
        sample = await ask(client, target, next(questions), load.output_tokens, until)
        samples.append(sample)
        progress.sample(sample)
        return sample

    async def worker(turns: Iterator[int]) -> None:
        for _ in turns:
            if loop.time() >= closes:
                return
            sample = await one()
            # A client that got Retry-After waits: the refusal is counted, and does not cause more of them.
            await asyncio.sleep(min(sample.retry_after, _MOST_PAUSE_S, max(0.0, closes - loop.time())))

    if load.pattern is Pattern.CLOSED:
        progress.level(f"{level:g} at once", load.requests)
        turns = iter(range(load.requests))
        await asyncio.gather(*(worker(turns) for _ in range(int(level))))
    else:
        progress.level(f"{level:g} a second", load.requests)
        async with asyncio.TaskGroup() as group:
            due = start
            for _, pause in zip(range(load.requests), load.pauses(level), strict=False):
                due += pause
                if due >= closes:
                    break
                await asyncio.sleep(max(0.0, due - loop.time()))
                group.create_task(one())
    return summarise(level, samples, loop.time() - start)
