"""A short, bounded load of streamed chats as a client sees it; docs/reference/bench.md defines every number."""

from rackserve.bench._drive import Progress, run_bench
from rackserve.bench._load import Load, Pattern, Target
from rackserve.bench._result import BenchResult, Distribution, Level, read_result, summarise
from rackserve.bench._stream import OK, Sample

__all__ = [
    "OK",
    "BenchResult",
    "Distribution",
    "Level",
    "Load",
    "Pattern",
    "Progress",
    "Sample",
    "Target",
    "read_result",
    "run_bench",
    "summarise",
]
