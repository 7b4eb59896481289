"""Figures from samples: percentiles of latency, tokens per second, and errors."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter, ValidationError

from rackserve.bench._load import Load, Pattern
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rackserve.bench._stream import Sample

_MS: Final = 1000.0


@dataclass(frozen=True)
class Distribution:
    """Times in milliseconds; percentiles as `statistics.quantiles(method="inclusive")`: linear between the ranks."""

    n: int
    mean: float
    min: float
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Distribution | None:
        """Summarise times in seconds; None where there are none."""
        values = sorted(second * _MS for second in seconds)
        if not values:
            return None
        cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99
        numbers = (statistics.fmean(values), values[0], cuts[49], cuts[94], cuts[98], values[-1])
        return cls(len(values), *(round(number, 3) for number in numbers))


@dataclass(frozen=True)
class Level:
    """The result of one level of a load.

    Attributes:
        load: requests at once, or requests per second.
        sent: requests that were started.
        seconds: from the first request's start to the last one's end.
        output_tokens_per_s: tokens of whole answers, all together, by these seconds.
        errors: number of failed requests by outcome.
        example: the first of these errors.
    """

    load: float
    sent: int
    answered: int
    seconds: float
    requests_per_s: float
    output_tokens_per_s: float
    prompt_tokens: int
    output_tokens: int
    tokens_counted_by_engine: bool
    ttft_ms: Distribution | None
    itl_ms: Distribution | None
    tpot_ms: Distribution | None
    e2e_ms: Distribution | None
    errors: dict[str, int]
    example: str = ""


@dataclass(frozen=True)
class BenchResult:
    """A whole measurement."""

    target: str
    model: str
    started: str
    load: Load
    warmup_failed: int
    levels: tuple[Level, ...]

    @property
    def ok(self) -> bool:
        """Whether every request was answered whole, those of the warm-up too."""
        return not self.warmup_failed and all(level.sent and not level.errors for level in self.levels)

    @property
    def unit(self) -> str:
        """What the levels are."""
        return "requests at once" if self.load.pattern is Pattern.CLOSED else "requests per second"


def summarise(load: float, samples: Sequence[Sample], seconds: float) -> Level:
    """Make one level of its samples; only whole answers count in times and tokens."""
    whole = [sample for sample in samples if sample.ok]
    wrong = [sample for sample in samples if not sample.ok]
    output = sum(sample.output_tokens for sample in whole)
    return Level(
        load=load,
        sent=len(samples),
        answered=len(whole),
        seconds=round(seconds, 3),
        requests_per_s=round(len(whole) / seconds, 3) if seconds else 0.0,
        output_tokens_per_s=round(output / seconds, 3) if seconds else 0.0,
        prompt_tokens=sum(sample.prompt_tokens for sample in whole),
        output_tokens=output,
        tokens_counted_by_engine=all(sample.counted for sample in whole),
        ttft_ms=Distribution.of(sample.ttft for sample in whole),
        itl_ms=Distribution.of(gap for sample in whole for gap in sample.gaps),
        tpot_ms=Distribution.of(sample.tpot for sample in whole if sample.tpot is not None),
        e2e_ms=Distribution.of(sample.end for sample in whole),
        errors=dict(sorted(Counter(sample.outcome for sample in wrong).items())),
        example=wrong[0].detail if wrong else "",
    )


def read_result(path: Path) -> BenchResult:
    """Read what `rackserve bench --json` printed.

    Raises:
        InputError: when it cannot be read, or is something else.
    """
    try:
        return TypeAdapter(BenchResult).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the measurement {path}: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{path} is not what `rackserve bench --json` prints: {error.errors()[0]['msg']}") from error
