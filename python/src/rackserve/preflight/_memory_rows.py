"""The row about a GPU host's own memory: what its instances move out of their GPUs, and what they share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from rackserve.preflight._rows import Row, Verdict, row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.vllm import Instance

_GIB: Final = 1 << 30
# NCCL's user guide asks for --shm-size=1g; each message queue of vLLM has ten chunks of 16 MiB, one from the engine and
# one from each worker (vllm 0.33.0, vllm/envs.py, v1/executor/multiproc_executor.py).
_NCCL: Final = 1 << 30
_QUEUE: Final = 160 << 20
_SHARED: Final = "shared memory"


def memory_rows(instances: Sequence[Instance], memory: int) -> list[Row]:
    """Return the rows about the host's memory; none where instances ask for nothing.

    Each unit has a /dev/shm of its own, which takes from the host's memory what is put there.

    Args:
        instances: those of the host.
        memory: the host's, in bytes; 0 is unknown.
    """
    rows = [_host_memory(instances, memory), _shared_memory(instances, memory)]
    return [entry for entry in rows if entry]


def shared_memory(workers: int) -> int:
    """Return the bytes of /dev/shm that an engine with some workers fills; 0 for one, which shares nothing."""
    return _NCCL + (1 + workers) * _QUEUE if workers > 1 else 0


def _shared_memory(instances: Sequence[Instance], memory: int) -> Row | None:
    several = [instance.name for instance in instances if memory_of(instance)[_SHARED]]
    if not several:
        return None
    need = sum(memory_of(instance)[_SHARED] for instance in instances)
    wanted = f"{need / _GIB:.1f} GiB for /dev/shm of {', '.join(several)} (several GPUs)"
    fix = "serve on a host with more memory, or on one GPU"
    found = f"{memory / _GIB:.1f} GiB of memory" if memory else "not known"
    return row("shared memory", wanted, found, fix, fits=need <= memory if memory else None)


def _host_memory(instances: Sequence[Instance], memory: int) -> Row | None:
    """Compare what instances ask of the host's memory with what it has; None where they move nothing there."""
    asked = {
        f"{instance.name}: {what}": size
        for instance in instances
        for what, size in memory_of(instance).items()
        if size > 0
    }
    if all(label.endswith(_SHARED) for label in asked):
        return None
    need = sum(asked.values())
    parts = ", ".join(f"{what} {size / _GIB:.1f}" for what, size in asked.items())
    wanted, fix = f"{need / _GIB:.1f} GiB ({parts})", "lower what the instances keep in the host's memory"
    if not memory:
        return Row("host memory", wanted, "not known", Verdict.UNKNOWN, fix)
    return row("host memory", wanted, f"{memory / _GIB:.1f} GiB", fix, fits=need <= memory)


def memory_of(instance: Instance) -> dict[str, int]:
    """Return what an instance may take of the host's memory, in bytes by purpose; what is no number counts as 0.

    `--kv-offloading-size` is of all tensor-parallel ranks of an engine, `--cpu-offload-gb` and `--swap-space` of each
    GPU (vllm 0.33.0, vllm/config/cache.py, offload.py). Caches that fill as they are used are not counted.
    """
    extra = instance.extra_args
    engines = _count(extra, "data-parallel-size")
    workers = instance.tensor_parallel * _count(extra, "pipeline-parallel-size") * engines
    kv = 0.0 if extra.get("kv-offloading-backend") == "lmcache" else _number(extra.get("kv-offloading-size")) * _GIB
    found = {
        "KV offload": max(kv, _connector_bytes(extra.get("kv-transfer-config"))) * engines,
        "weight offload": _number(extra.get("cpu-offload-gb")) * _GIB * workers,
        "swap space": _number(extra.get("swap-space")) * _GIB * workers,
        _SHARED: shared_memory(workers),
    }
    return {what: int(size) for what, size in found.items()}


def _connector_bytes(config: Any) -> float:  # noqa: ANN401 - as the inventory has it
    extra = config.get("kv_connector_extra_config") if isinstance(config, dict) else None
    return _number(extra.get("cpu_bytes_to_use")) if isinstance(extra, dict) else 0


def _count(extra: Mapping[str, Any], key: str) -> int:
    return max(1, int(_number(extra.get(key))))


def _number(value: Any) -> float:  # noqa: ANN401 - as the inventory has it
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return 0
    try:
        number = float(value)
    except ValueError:
        return 0
    return number if math.isfinite(number) else 0
