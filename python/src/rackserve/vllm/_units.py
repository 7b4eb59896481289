"""Units of a host's instances: names, start order, and the engine's listening address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.gpu import stable_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.vllm._instances import Instance
    from rackserve.vllm._releases import Release

_RESTART_S: Final = 5
_RESTART_STEP_S: Final = 3


def start_plan(instances: Sequence[Instance], *, serial: bool) -> dict[str, dict[str, Any]]:
    """Return, by instance, the instances that it starts after (`after`) and how long a restart waits (`restart_sec`).

    Instances of one GPU start one after the other, since each measures how much of its memory is free. `after` orders
    starts that are queued together; growing restart delays keep that order for instances that failed together.

    Args:
        instances: those of one host, in the order of the inventory.
        serial: whether instances without a shared GPU wait for each other too.
    """
    plan: dict[str, dict[str, Any]] = {}
    for position, instance in enumerate(instances):
        before = [other for other in instances[:position] if serial or _gpus(other) & _gpus(instance)]
        plan[instance.name] = {
            "after": [other.name for other in before],
            "restart_sec": _RESTART_S + _RESTART_STEP_S * len(before),
        }
    return plan


def _gpus(instance: Instance) -> set[str]:
    return {stable_name(str(gpu)) for gpu in instance.gpus}


def engine_address(instance: Instance, release: Release, digest: str) -> str:
    """Return the address of a generation's engine in its private network: a socket's path, or host and port."""
    on_socket = "uds" in release.flags
    return f"{run_folder(instance.name, digest)}/api.sock" if on_socket else f"127.0.0.1:{instance.port}"


def run_folder(name: str, digest: str) -> str:
    """Return the folder of a generation's engine in /run."""
    return f"/run/vllm-{name}.{digest}"


def unit_of(name: str, digest: str) -> str:
    """Return the unit of a generation's engine."""
    return f"vllm@{name}.{digest}.service"


def listener_of(name: str) -> str:
    """Return the socket unit of an instance."""
    return f"vllm-proxy@{name}.socket"


def timer_of(name: str) -> str:
    """Return the timer of an instance's probe runs."""
    return f"vllm-probe@{name}.timer"
