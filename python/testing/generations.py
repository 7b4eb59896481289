"""Generations of the instances on a host of the lab, as a host's shell names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testinfra.host import Host

INSTANCES = "/etc/vllm/instances"


def engine_unit(name: str) -> str:
    """Return an expression that a host's shell replaces by the unit of an instance's live engine.

    A glob would find it only while it runs: systemd unloads what is stopped.
    """
    return f"vllm@{name}.$(basename $(readlink {INSTANCES}/{name}/current)).service"


def generation(host: Host, name: str, link: str = "current") -> str:
    """Return the digest of the generation that a link of an instance names."""
    return str(host.check_output(f"basename $(readlink {INSTANCES}/{name}/{link})"))


def folder_of(name: str, digest: str) -> str:
    """Return the folder of a generation."""
    return f"{INSTANCES}/{name}/generations/{digest}"


def unit_of(name: str, digest: str) -> str:
    """Return the unit of a generation's engine."""
    return f"vllm@{name}.{digest}.service"
