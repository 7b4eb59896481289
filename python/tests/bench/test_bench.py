"""The load against a real HTTP server on loopback: what is sent, what is timed, and what goes wrong."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from rackserve.bench import (
    BenchResult,
    Distribution,
    Load,
    Pattern,
    Sample,
    Target,
    read_result,
    run_bench,
    summarise,
)
from rackserve.errors import InputError, RunError
from testing.stand_in_server import Behaviour, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "rsk-canary"
QUICK = Load(levels=(2.0,), requests=4, warmup=1, seconds=5, grace=5, input_words=8, output_tokens=5)


class Silent:
    """Counts the calls."""

    def __init__(self) -> None:
        self.levels: list[tuple[str, int]] = []
        self.samples: list[Sample] = []

    def level(self, name: str, total: int) -> None:
        self.levels.append((name, total))

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)


def measure(behaviour: Behaviour, load: Load = QUICK) -> BenchResult:
    with serving(behaviour) as url:
        return asyncio.run(run_bench(Target("edge1", url, "m", verify=False, key=KEY), load, Silent()))


def test_a_closed_loop_measures_what_the_server_does() -> None:
    behaviour = Behaviour(first_s=0.05, gap_s=0.02)
    result = measure(behaviour)
    (level,) = result.levels
    assert (result.ok, level.sent, level.answered, level.errors) == (True, 4, 4, {})
    assert (level.output_tokens, level.prompt_tokens, level.tokens_counted_by_engine) == (20, 280, True)
    assert level.ttft_ms
    assert level.itl_ms
    assert level.tpot_ms
    assert level.e2e_ms
    assert (level.ttft_ms.n, level.itl_ms.n, level.e2e_ms.n) == (4, 16, 4)
    # The server sleeps so long at least; the role's chunk, which comes at once, is no token.
    assert level.ttft_ms.min >= 50
    assert level.itl_ms.min > 0
    assert level.itl_ms.mean >= 15
    assert level.tpot_ms.min >= 15
    assert level.e2e_ms.min >= level.ttft_ms.min + 80
    assert level.output_tokens_per_s == pytest.approx(20 / level.seconds, rel=0.01)


def test_so_many_at_once_and_no_more_than_asked() -> None:
    behaviour = Behaviour()
    result = measure(behaviour, replace(QUICK, levels=(3.0,), requests=7, warmup=2))
    assert (behaviour.most_open, len(behaviour.requests), result.levels[0].sent) == (3, 9, 7)


def test_what_is_sent() -> None:
    behaviour = Behaviour()
    measure(behaviour)
    assert set(behaviour.keys) == {f"Bearer {KEY}"}
    body = behaviour.requests[0]
    assert (body["stream"], body["max_tokens"], body["min_tokens"], body["temperature"]) == (True, 5, 5, 0)
    questions = [request["messages"][0]["content"] for request in behaviour.requests]
    assert len(set(questions)) == 5
    again = Behaviour()
    measure(again)
    assert sorted(questions) == sorted(request["messages"][0]["content"] for request in again.requests)
    other = Behaviour()
    measure(other, replace(QUICK, seed=1))
    assert not set(questions) & {request["messages"][0]["content"] for request in other.requests}


def test_a_poisson_load_does_not_wait_for_answers() -> None:
    behaviour = Behaviour(first_s=0.3)
    result = measure(behaviour, replace(QUICK, pattern=Pattern.POISSON, levels=(50.0,), requests=10))
    assert result.ok
    assert behaviour.most_open > 2
    pauses = list(itertools.islice(QUICK.pauses(50.0), 2000))
    assert pauses == list(itertools.islice(QUICK.pauses(50.0), 2000))
    assert sum(pauses) / len(pauses) == pytest.approx(1 / 50, rel=0.1)


@pytest.mark.parametrize(
    ("turn", "outcome", "detail"),
    [
        ("429", "HTTP 429", "refused with 429"),
        ("503", "HTTP 503", "refused with 503"),
        ("error", "broken stream", "the engine died"),
        ("no end", "broken stream", "[DONE]"),
        ("garbage", "broken stream", "not a chunk of a chat"),
        ("cut", "broken stream", "RemoteProtocolError"),
    ],
)
def test_what_goes_wrong_is_counted_and_not_in_the_times(turn: str, outcome: str, detail: str) -> None:
    result = measure(Behaviour(turns=deque(["ok", "ok", turn])))
    (level,) = result.levels
    assert (result.ok, level.sent, level.answered, level.errors) == (False, 4, 3, {outcome: 1})
    assert detail in level.example
    assert level.e2e_ms
    assert level.e2e_ms.n == 3


def test_a_429_makes_the_client_wait_as_long_as_retry_after() -> None:
    load = replace(QUICK, levels=(1.0,), requests=2)
    result = measure(Behaviour(turns=deque(["ok", "429"])), load)
    assert result.levels[0].seconds >= 1.0


def test_tokens_are_chunks_where_no_usage_is_reported() -> None:
    (level,) = measure(Behaviour(default="no usage")).levels
    assert (level.output_tokens, level.tokens_counted_by_engine) == (20, False)


def test_it_stops_by_itself_when_the_server_hangs() -> None:
    load = replace(QUICK, seconds=1, grace=0.2)
    (level,) = measure(Behaviour(turns=deque(["ok"]), default="hang"), load).levels
    assert level.errors == {"not finished in time": 2}
    assert (level.answered, level.ttft_ms, level.output_tokens_per_s) == (0, None, 0.0)
    assert level.seconds < 5


@pytest.mark.parametrize("pattern", list(Pattern))
def test_no_request_starts_after_its_time(pattern: Pattern) -> None:
    load = replace(QUICK, pattern=pattern, levels=(2.0,), requests=500, seconds=1)
    result = measure(Behaviour(first_s=0.2), load)
    assert 0 < result.levels[0].sent < 20
    assert result.ok


def test_nothing_is_measured_where_the_warm_up_fails() -> None:
    with pytest.raises(RunError, match=r"none of 1 requests of the warm-up to edge1.*HTTP 401: refused with 401"):
        measure(Behaviour(default="401"))
    target = Target("edge1", "http://127.0.0.1:9", "m", verify=False)
    with pytest.raises(RunError, match="no answer: ConnectError"):
        asyncio.run(run_bench(target, QUICK, Silent()))


def test_a_failed_request_of_the_warm_up_is_reported() -> None:
    result = measure(Behaviour(turns=deque(["ok", "429"])), replace(QUICK, warmup=2))
    assert (result.ok, result.warmup_failed) == (False, 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"levels": ()}, "number of levels 0 is not from 1 to 8"),
        ({"levels": (0.0,)}, "concurrency 0 is not above 0 and up to 256"),
        ({"levels": (257.0,)}, "concurrency 257"),
        ({"levels": (1.5,)}, "1.5 is not a whole number"),
        ({"levels": (2.0, 2.0)}, "a level is listed twice"),
        ({"levels": (float("nan"),)}, "concurrency nan"),
        ({"pattern": Pattern.POISSON, "levels": (101.0,)}, "rate 101 is not above 0 and up to 100"),
        ({"requests": 0}, "requests 0 is not from 1 to 1000"),
        ({"warmup": 0}, "warmup 0"),
        ({"seconds": 601}, "seconds 601"),
        ({"input_words": 0, "output_tokens": 1}, "input words 0 is not from 1 to 20000; output tokens 1"),
    ],
)
def test_silly_loads_are_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as refused:
        replace(QUICK, **change)  # type: ignore[arg-type]
    assert says in str(refused.value)


def test_percentiles_are_linear_between_ranks() -> None:
    found = Distribution.of(n / 1000 for n in range(101))
    assert found == Distribution(n=101, mean=50, min=0, p50=50, p95=95, p99=99, max=100)
    assert Distribution.of([0.007]) == Distribution(1, 7, 7, 7, 7, 7, 7)
    assert Distribution.of([]) is None


def test_time_per_output_token_is_of_a_request_and_not_of_its_chunks() -> None:
    # Ten tokens in three chunks: two gaps, nine tokens after the first.
    sample = Sample("ok", ttft=1.0, last=1.9, end=2.0, gaps=(0.45, 0.45), output_tokens=10, counted=True)
    level = summarise(1.0, [sample], 2.0)
    assert level.itl_ms
    assert level.tpot_ms
    assert (level.itl_ms.p50, level.tpot_ms.p50) == (450, 100)
    assert Sample("ok", output_tokens=1).tpot is None


def test_a_result_is_read_back(tmp_path: Path, fresh: Callable[[], BenchResult]) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"ok": True, **asdict(fresh())}), encoding="utf-8")
    assert read_result(file) == fresh()
    for text in ("{}", "no JSON", '{"target": 1}'):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="is not what `rackserve bench --json` prints"):
            read_result(file)
    with pytest.raises(InputError, match="cannot read the measurement"):
        read_result(tmp_path / "none")


@pytest.fixture
def fresh() -> Callable[[], BenchResult]:
    level = summarise(1.0, [Sample("ok", ttft=0.1, last=0.5, end=0.6, gaps=(0.1,), output_tokens=5)], 1.0)
    return lambda: BenchResult("edge1", "m", "2026-01-01T00:00:00+00:00", QUICK, 0, (level,))
