"""What the wheels of vLLM's releases declare: the reader of `data/vllm_facts.json`.

`python/tools/extract_vllm_facts.py` writes that file from the wheels.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS: Final = (
    "flags",
    "architectures",
    "transformers",
    "gone",
    "plugins",
    "model_types",
    "quantization",
    "deprecated",
    "schemes",
)
_DATA: Final = Path(__file__).parents[1] / "data" / "vllm_facts.json"

Capability = tuple[int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """What one release declares.

    Attributes:
        flags: all of `vllm serve`, without leading dashes.
        architectures: those that it implements itself; `architectures` of config.json names them.
        transformers: further model classes of the transformers that its lock pins, through which it may serve.
        gone: architectures of earlier releases that it says are gone, with the last release that had them.
        plugins: architectures that it says need a plugin, with the plugin's address.
        model_types: the `model_type` whose config.json it, or its transformers, reads without code of the repository.
        quantization: methods by the names of `quant_method`, with the lowest compute capability; None is not known.
        deprecated: methods that need `--allow-deprecated-quantization`.
        schemes: lowest compute capability of the schemes of compressed-tensors, by the name of their class.
    """

    flags: frozenset[str]
    architectures: frozenset[str]
    transformers: frozenset[str]
    gone: Mapping[str, str]
    plugins: Mapping[str, str]
    model_types: frozenset[str]
    quantization: Mapping[str, Capability | None]
    deprecated: frozenset[str]
    schemes: Mapping[str, Capability]


def unpack(text: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the names of each kind by release, oldest first; a name without a value has True.

    In the file a name stands under the releases that have it: `first..last`, several such runs with commas.
    """
    data = json.loads(text)
    order: list[str] = data["releases"]
    found: dict[str, dict[str, dict[str, Any]]] = {release: {kind: {} for kind in KINDS} for release in order}
    for kind in KINDS:
        for span, names in data[kind].items():
            group = names if isinstance(names, dict) else dict.fromkeys(names, True)
            for run in span.split(", "):
                first, _, last = run.partition("..")
                for release in order[order.index(first) : order.index(last or first) + 1]:
                    found[release][kind].update(group)
    return found


@cache
def _all() -> dict[str, Facts]:
    return {
        release: Facts(
            flags=frozenset(kinds["flags"]),
            architectures=frozenset(kinds["architectures"]),
            transformers=frozenset(kinds["transformers"]),
            gone=kinds["gone"],
            plugins=kinds["plugins"],
            model_types=frozenset(kinds["model_types"]),
            quantization={name: _capability(floor) for name, floor in kinds["quantization"].items()},
            deprecated=frozenset(kinds["deprecated"]),
            schemes={name: _dotted(floor) for name, floor in kinds["schemes"].items()},
        )
        for release, kinds in unpack(_DATA.read_text(encoding="utf-8")).items()
    }


def _capability(floor: str | None) -> Capability | None:
    return None if floor is None else _dotted(floor)


def _dotted(floor: str) -> Capability:
    major, minor = floor.split(".")
    return int(major), int(minor)


def known_releases() -> tuple[str, ...]:
    """Return the releases that the data has, oldest first."""
    return tuple(_all())


def facts_of(version: str) -> Facts:
    """Return what a release declares.

    Raises:
        InputError: naming the releases that are known.
    """
    return of_release(_all(), version)


def of_release(known: Mapping[str, T], version: str) -> T:
    """Return what is known of a release.

    Raises:
        InputError: naming the releases that are known.
    """
    if version not in known:
        raise InputError(f"vLLM {version} is not a release that rackserve knows; set one of {', '.join(known)}")
    return known[version]


def releases_of(kind: str, name: str) -> list[str]:
    """Return the releases in whose facts of a kind (`architectures`, `quantization`) a name is, oldest first."""
    return [release for release, facts in _all().items() if name in getattr(facts, kind)]


@cache
def flag_holders() -> Mapping[str, Sequence[str]]:
    """Return the releases that have each flag, oldest first."""
    found: dict[str, list[str]] = defaultdict(list)
    for release, facts in _all().items():
        for flag in facts.flags:
            found[flag].append(release)
    return found


def since_when(holders: Sequence[str]) -> str:
    """Describe the releases that have something, as a sentence about `it`."""
    order = list(_all())
    first, last = order.index(holders[0]), order.index(holders[-1])
    if last - first >= len(holders):
        return f"only {', '.join(holders)} have it"
    since = f"came after {order[first - 1]}" if first else ""
    until = f"went after {order[last]}" if last + 1 < len(order) else ""
    return "it " + " and ".join(part for part in (since, until) if part)
