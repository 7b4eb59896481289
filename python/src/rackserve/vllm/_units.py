"""Units of a host's instances: their names, who starts after whom, and where an engine listens."""

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
    """Return, by instance, the units that it starts after (`after`) and how long a restart waits (`restart_sec`).

    Instances of one GPU start one after the other, since each measures how much of its memory is free. An order alone
    holds for starts that are queued together; that each waits a little longer than the one before queues those that
    died together in the same order.

    Args:
        instances: those of one host, in the order of the inventory.
        serial: whether instances that share no GPU wait for each other too.
    """
    plan: dict[str, dict[str, Any]] = {}
    for position, instance in enumerate(instances):
        before = [other for other in instances[:position] if serial or _gpus(other) & _gpus(instance)]
        plan[instance.name] = {
            "after": [unit_of(other.name) for other in before],
            "restart_sec": _RESTART_S + _RESTART_STEP_S * len(before),
        }
    return plan


def _gpus(instance: Instance) -> set[str]:
    return {stable_name(str(gpu)) for gpu in instance.gpus}


def engine_address(instance: Instance, release: Release) -> str:
    """Return where the engine listens in the network of its own: a socket's path, or host and port."""
    return f"/run/vllm-{instance.name}/api.sock" if "uds" in release.flags else f"127.0.0.1:{instance.port}"


def unit_of(name: str) -> str:
    """Return the unit of an instance's engine."""
    return f"vllm@{name}.service"


def listener_of(name: str) -> str:
    """Return the unit that listens for an instance."""
    return f"vllm-proxy@{name}.socket"


def timer_of(name: str) -> str:
    """Return the unit that starts the probe runs of an instance."""
    return f"vllm-probe@{name}.timer"
