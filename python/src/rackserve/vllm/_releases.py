"""vLLM's releases, typed: the reader of `data/vllm_releases.yml`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, Field

from rackserve._schema import Strict
from rackserve.servable import facts_of, flag_holders, of_release, since_when

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DATA: Final = Path(__file__).parents[1] / "data" / "vllm_releases.yml"
_LEAVE_OUT: Final = "leave it out"


def _compiles(pattern: str) -> str:
    re.compile(pattern)
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
Dotted = Annotated[str, Field(pattern=r"^\d+(\.\d+)+$")]


class PythonRange(Strict):
    """Python releases that the wheels install on: `from` and newer, older than `below`."""

    first: Dotted = Field(alias="from")
    below: Dotted | None = None


class KvLog(Strict):
    """Regular expressions for the lines in which an engine logs the size of its KV cache.

    V1 engines give `tokens`, 0.6.4 gives `blocks`; all give the concurrency at `length` tokens a request.
    """

    tokens: Pattern | None = None
    blocks: Pattern | None = None
    concurrency: Pattern


class BadPin(Strict):
    """Versions of a dependency that the release's metadata allows but that do not work with it."""

    pin: str
    why: str
    source: str


class Release(Strict):
    """One vLLM release. Defaults are what the newest releases do.

    Attributes:
        driver: the oldest major release of NVIDIA's driver that it runs on.
        gpus_by_uuid: CUDA_VISIBLE_DEVICES may have UUIDs, the only names that MIG instances have.
        model_on_command_line: the model must come before `--config`, and not be in the file.
        lists_in_config: a list in the file is read as several arguments; else as one.
        negates_switches: every switch has its `--no-` form.
        drains: running requests are completed after SIGTERM.
        api_key_logged: the start writes the API key to the log.
        allowed_origins: default of --allowed-origins, the browsers' origins that may call the API.
        max_num_seqs: default of --max-num-seqs; None where it depends on the GPU.
        flags: all of `vllm serve`, `--no-` forms too, without leading dashes.
        absent: those of other releases, with a sentence on when they were added or removed, and what to set.
        metrics: vLLM's names of metrics under ours.
        steps: series that the steps of an engine change.
        paths: those of `known_paths` that the release has.
    """

    version: str
    python: PythonRange
    torch: Dotted
    cuda: Dotted
    driver: int
    glibc: Dotted
    gpus_by_uuid: bool = True
    model_on_command_line: bool = False
    lists_in_config: bool = True
    negates_switches: bool = True
    drains: bool = True
    log_requests: Literal["unless-disabled", "off"] = "off"
    api_key_logged: bool = False
    allowed_origins: tuple[str, ...] = Field(default=(), strict=False)
    gpu_memory_utilization: float = 0.92
    prefix_caching: bool = True
    max_num_seqs: int | None = None
    kv_log: KvLog
    known_bad: tuple[BadPin, ...] = Field(default=(), strict=False)
    kv_cache_dtypes: tuple[str, ...] = Field(strict=False)
    lora_ranks: tuple[int, ...] = Field(default=(1, 8, 16, 32, 64, 128, 256, 320, 512), strict=False)
    tool_parsers: tuple[str, ...] = Field(strict=False)
    flags: frozenset[str] = Field(default=frozenset(), strict=False)
    absent: dict[str, str] = Field(default={})
    metrics: dict[str, str] = Field(default={})
    steps: tuple[str, ...] = Field(default=(), strict=False)
    paths: frozenset[str] = Field(default=frozenset(), strict=False)
    model_parsers: dict[str, str] = Field(default={})

    @property
    def cuda_major(self) -> int:
        """Major release of CUDA that the wheels are built for."""
        return int(self.cuda.split(".", maxsplit=1)[0])

    def parser_for(self, repo: str) -> str | None:
        """Return the tool-call parser that fits a model and that this release has; None for an unlisted model."""
        found = (parser for pattern, parser in self.model_parsers.items() if re.fullmatch(pattern, repo))
        parser = next(found, None)
        return parser if parser in self.tool_parsers else None

    def likely_parser(self, repo: str) -> tuple[str, str] | None:
        """Return the parser for a copy of a known model in another's repository, and the known model's owner."""
        name = repo.rpartition("/")[2]
        for pattern, parser in self.model_parsers.items():
            owner, _, model = pattern.partition("/")
            if re.match(model, name) and parser in self.tool_parsers:
                return parser, f"{owner}'s model"
        return None


class _Span(Strict):
    first: str | None = Field(default=None, alias="from")
    until: str | None = None
    but: tuple[str, ...] = Field(default=(), strict=False)

    def covers(self, version: str, order: Sequence[str]) -> bool:
        """Return whether a release lies in the span; `order` is every version, oldest first."""
        first = order.index(self.first or order[0])
        last = order.index(self.until or order[-1])
        return first <= order.index(version) <= last and version not in self.but


class _Metric(_Span):
    name: str


class ApiPath(_Span):
    """A path of the API: the tasks of the instances that have it, and whether it is offered only when listed."""

    tasks: tuple[str, ...] = Field(strict=False)
    optional: bool = False


class _ModelParser(Strict):
    repo: Pattern
    parser: str


class _File(Strict):
    releases: list[dict[str, Any]]
    instead: dict[str, str]
    metrics: dict[str, list[_Metric]]
    steps: list[_Metric]
    paths: dict[str, ApiPath]
    tool_parsers: list[_ModelParser]


@cache
def _data() -> _File:
    return _File.model_validate(yaml.safe_load(_DATA.read_text(encoding="utf-8")))


def known_paths() -> Mapping[str, ApiPath]:
    """Return every path of the API that clients may be allowed, in the order of the data."""
    return _data().paths


@cache
def releases() -> Mapping[str, Release]:
    """Return every release that rackserve serves, by version, oldest first."""
    data = _data()
    order = [str(row["version"]) for row in data.releases]
    return {str(row["version"]): _release(row, data, order) for row in data.releases}


def release_of(version: str) -> Release:
    """Return the data of a release.

    Raises:
        InputError: naming the releases that are known.
    """
    return of_release(releases(), version)


def _release(row: dict[str, Any], data: _File, order: Sequence[str]) -> Release:
    version = str(row["version"])
    flags = facts_of(version).flags
    return Release.model_validate(
        {
            **row,
            "flags": flags,
            "absent": {
                name: f"{since_when(holders)}; {_advice(name, data, flags)}"
                for name, holders in flag_holders().items()
                if name not in flags
            },
            "metrics": {
                ours: metric.name
                for ours, metrics in data.metrics.items()
                for metric in metrics
                if metric.covers(version, order)
            },
            "steps": [metric.name for metric in data.steps if metric.covers(version, order)],
            "paths": [path for path, row in data.paths.items() if row.covers(version, order)],
            "model_parsers": {known.repo: known.parser for known in data.tool_parsers},
        }
    )


def _advice(name: str, data: _File, flags: frozenset[str]) -> str:
    """Return what to do without a flag; a flag to set instead is named only to a release that has it."""
    advice = data.instead.get(name.removeprefix("no-"), _LEAVE_OUT)
    named = re.search(r"\bset ([a-z-]+)$", advice)
    return advice if named is None or named[1] in flags else _LEAVE_OUT
