"""How the units of a host's instances stand to each other: who starts after whom, and where an engine is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.gpu import stable_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.vllm._instances import Instance

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
            "after": [f"vllm@{other.name}.service" for other in before],
            "restart_sec": _RESTART_S + _RESTART_STEP_S * len(before),
        }
    return plan


def _gpus(instance: Instance) -> set[str]:
    return {stable_name(str(gpu)) for gpu in instance.gpus}


def engine_address(config: Mapping[str, Any]) -> str:
    """Return where an engine listens, by what its `--config` file says: a socket's path, or host and port."""
    return str(config["uds"]) if "uds" in config else f"{config['host']}:{config['port']}"
