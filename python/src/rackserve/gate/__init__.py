"""The gate: whether a host's GPUs, driver and system can run the instances that it is asked to serve.

Pure functions over what was read on the host (`rackserve_gpu_facts`), the inventory, a vLLM release
(`vllm_releases.yml`) and what is known of GPUs (`gpus.yml`). The result is one table for each host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.gate._driver import DriverPlan, driver_rows
from rackserve.gate._facts import Gpu, GpuFacts
from rackserve.gate._hardware import hardware
from rackserve.gate._instances import instance_rows, shares_of
from rackserve.gate._rows import Row, Verdict, refused, row, table_of
from rackserve.gate._select import find_share, stable_name, visible_devices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.instances import Instance
    from rackserve.releases import Release

__all__ = [
    "DriverPlan",
    "Gpu",
    "GpuFacts",
    "Row",
    "Verdict",
    "capability_of",
    "driver_rows",
    "find_share",
    "gpu_bytes_of",
    "gpu_rows",
    "group_row",
    "hardware",
    "refused",
    "row",
    "stable_name",
    "table_of",
    "visible_devices",
]


def gpu_rows(
    facts: GpuFacts, instances: Sequence[Instance], release: Release, plan: DriverPlan, *, cached_kernels: bool
) -> list[Row]:
    """Return every row of a host that is to run vLLM's CUDA build.

    Args:
        facts: what the host is.
        instances: those of the host.
        release: the vLLM that is to run.
        plan: what the inventory says of the driver.
        cached_kernels: whether the locked packages bring FlashInfer's kernels compiled.
    """
    used = [share.gpu for instance in instances for share in shares_of(instance, facts)]
    rows = driver_rows(facts, used or facts.gpus, plan, release)
    rows.append(_glibc(facts, release))
    if facts.gpus:
        for instance in instances:
            rows += instance_rows(instance, facts, release, cached_kernels=cached_kernels)
    return rows


def gpu_bytes_of(instance: Instance, facts: GpuFacts) -> int | None:
    """Return the memory that CUDA gets of the smallest of an instance's GPUs; None where that is not known."""
    shares = shares_of(instance, facts)
    sizes = [share.cuda_bytes for share in shares if share.cuda_bytes is not None]
    return min(sizes) if sizes and len(sizes) == len(instance.gpus) else None


def capability_of(instance: Instance, gpus: Sequence[Gpu]) -> tuple[int, int] | None:
    """Return the oldest compute capability of an instance's GPUs; None where a GPU is unknown."""
    shares = [find_share(wanted, gpus) for wanted in instance.gpus]
    known = [share.gpu.capability for share in shares if share and share.gpu.capability]
    return min(known) if known and len(known) == len(shares) else None


def group_row(host: str, peers: Mapping[str, GpuFacts]) -> Row | None:
    """Compare a host's GPUs with those of the hosts that serve the very same instances; None where it has no peer.

    Args:
        host: the host that is judged.
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
    found = tuple(map(int, facts.host.glibc.split(".")))
    wanted = tuple(map(int, release.glibc.split(".")))
    fix = "serve on a newer Debian, or set stack_runtime.vllm to a release whose wheels are older"
    return row("glibc", f"{release.glibc} or newer", facts.host.glibc, fix, fits=found >= wanted)
