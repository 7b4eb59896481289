"""Checks whether a host's GPUs, driver and system can run its instances.

Pure functions over what was read on the host (`rackserve_gpu_facts`), the inventory, a vLLM release
(`vllm_releases.yml`) and the data of known GPUs (`gpus.yml`). The result is one table for each host.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rackserve.gpu import shares_of
from rackserve.preflight._driver_rows import driver_rows
from rackserve.preflight._gpu_rows import instance_rows
from rackserve.preflight._kv_rows import version_of
from rackserve.preflight._memory_rows import memory_rows
from rackserve.preflight._rows import Row, row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.gpu import GpuFacts
    from rackserve.preflight._driver_rows import DriverPlan
    from rackserve.vllm import Instance, Release


def gpu_rows(
    facts: GpuFacts,
    instances: Sequence[Instance],
    release: Release,
    plan: DriverPlan,
    *,
    cached_kernels: bool,
    stored: Mapping[str, str | None] | None = None,
) -> list[Row]:
    """Return every row of a host that is to run vLLM's CUDA build.

    Args:
        facts: the host's facts.
        instances: those of the host.
        release: the vLLM that is to run.
        plan: the plan for the driver.
        cached_kernels: whether the locked packages bring FlashInfer's kernels compiled.
        stored: by instance, the type of the KV cache that its checkpoint asks for.
    """
    used = [share.gpu for instance in instances for share in shares_of(instance.gpus, facts.gpus)]
    rows = driver_rows(facts, used or facts.gpus, plan, release)
    rows += [_glibc(facts, release), *memory_rows(instances, facts.host.memory)]
    if facts.gpus:
        for instance in instances:
            asked = (stored or {}).get(instance.name)
            rows += instance_rows(instance, facts, release, cached_kernels=cached_kernels, stored=asked)
    return rows


def group_row(host: str, peers: Mapping[str, GpuFacts]) -> Row | None:
    """Compare a host's GPUs with those of the hosts that serve the very same instances; None where it has no peer.

    Args:
        host: the host to compare.
        peers: facts by host, its own among them.
    """
    kinds = {name: ", ".join(sorted({gpu.name for gpu in facts.gpus})) for name, facts in sorted(peers.items())}
    others = {name: kind for name, kind in kinds.items() if name != host and kind}
    if not others or not kinds.get(host):
        return None
    found = "; ".join(f"{name}: {kind}" for name, kind in kinds.items() if kind)
    fix = "give hosts with another GPU a group of their own, with vllm_instances that fit it"
    wanted = "one kind where hosts share their vllm_instances"
    return row("GPUs of the group", wanted, found, fix, fits=set(others.values()) == {kinds[host]})


def _glibc(facts: GpuFacts, release: Release) -> Row:
    known = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+)*", facts.host.glibc)
    fits = (int(known[1]), int(known[2])) >= version_of(release.glibc) if known else None
    fix = "serve on a newer Debian, or set stack_runtime.vllm to a release whose wheels are older"
    return row("glibc", f"{release.glibc} or newer", facts.host.glibc or "not known", fix, fits=fits)
