"""Validates that a host's instances fit its vLLM release, and together fit on its GPUs."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from rackserve.gpu import stable_name
from rackserve.vllm._config import cli_args, parser_of
from rackserve.vllm._extra_args import unknown_flags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.vllm._instances import Instance
    from rackserve.vllm._releases import Release

_SAFE: Final = re.compile(r"[\w./=:,@+-]+", re.ASCII)
_WHOLE: Final = 1 + 1e-9  # ten times 0.1 is a whole GPU
_SEVERAL: Final = 2


def validate_release(instances: Sequence[Instance], release: Release) -> list[str]:
    """Return a sentence for everything that vLLM would refuse or that would not fit; empty when valid."""
    each = (_instance_problems(instance, release) for instance in instances)
    labelled = [f"instance {i.name!r}: {text}" for i, found in zip(instances, each, strict=True) for text in found]
    return labelled + _sharing_problems(instances, release)


def _instance_problems(instance: Instance, release: Release) -> list[str]:
    version = f"vLLM {release.version}"
    found = []
    parser, kv_type = parser_of(instance, release), instance.kv_cache_dtype
    if parser is not None and parser not in release.tool_parsers:
        has = ", ".join(release.tool_parsers)
        found.append(f"tool_call_parser is {parser!r}, which {version} does not have; set one of none, {has}")
    if kv_type is not None and kv_type not in release.kv_cache_dtypes:
        has = ", ".join(release.kv_cache_dtypes)
        found.append(f"kv_cache_dtype is {kv_type!r}, which {version} does not have; set one of {has}")
    if instance.api_server_count is not None and "api-server-count" not in release.flags:
        why = release.absent["api-server-count"]
        found.append(f"api_server_count is {instance.api_server_count}, which {version} does not have: {why}")
    if instance.task == "score" and "/v1/score" not in release.paths:
        found.append(f"task is 'score', which {version} does not have; set stack_runtime.vllm to a newer one")
    found += unknown_flags(instance.extra_args, release)
    found += [
        f"{arg!r} must be on the command line of {version}, where only letters, digits and ./=:,@+_- are safe"
        for arg in cli_args(instance, release)
        if not _SAFE.fullmatch(arg)
    ]
    return found


def _sharing_problems(instances: Sequence[Instance], release: Release) -> list[str]:
    """Refuse GPUs whose memory is over-allocated; a single instance never takes more than the whole."""
    shares: dict[str, dict[str, float]] = defaultdict(dict)
    for instance in instances:
        for gpu in instance.gpus:
            share = instance.gpu_memory_utilization or release.gpu_memory_utilization
            shares[stable_name(str(gpu))][instance.name] = share
    return [
        f"the memory of GPU {gpu} is over-allocated: "
        f"{', '.join(f'{name} ({share:g})' for name, share in shared.items())}, together {sum(shared.values()):g}; "
        "set gpu_memory_utilization of each so that the sum is at most 1"
        for gpu, shared in shares.items()
        if sum(shared.values()) > _WHOLE
    ] + _naming_problems(instances)


def _naming_problems(instances: Sequence[Instance]) -> list[str]:
    ways: dict[str, list[str]] = defaultdict(list)
    for instance in instances:
        for way in sorted({_way_of(gpu) for gpu in instance.gpus}):
            ways[way].append(instance.name)
    if len(ways) < _SEVERAL:
        return []
    mixed = " and ".join(f"those of {', '.join(names)} are {way}" for way, names in ways.items())
    sentence = f"gpus{mixed.removeprefix('those')}, so it is unknown whether they share one"
    return [f"{sentence}; name all GPUs of a host the same way"]


def _way_of(gpu: int | str) -> str:
    if isinstance(gpu, int):
        return "indexes"
    return "PCI addresses" if ":" in gpu else "UUIDs"
