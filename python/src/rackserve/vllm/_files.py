"""Files of the units of a vLLM host: their paths, the role's templates for them, and the units that read them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve.vllm._arguments import owner_of
from rackserve.vllm._units import listener_of, run_folder, unit_of

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG: Final = "/etc/vllm/instances"
LIB: Final = "/usr/local/lib/rackserve"
PARSER: Final = f"{LIB}/parse_arguments.py"
PROBE: Final = f"{LIB}/vllm_probe.py"
UNITS: Final = "/etc/systemd/system"
# Textfile directory of Debian's node exporter.
METRICS: Final = "/var/lib/prometheus/node-exporter"
# Units that all instances share; what differs is in a drop-in of each instance.
_SHARED: Final = ("vllm-proxy@.socket", "vllm-proxy@.service", "vllm-probe@.service", "vllm-probe@.timer")
# Templates of a generation's files, which decide its name as their data does.
GENERATION_TEMPLATES: Final = ("engine.yaml.j2", "engine.env.j2", "join.conf.j2", "engine.service.j2", "json.j2")
_DROPIN: Final = "10-instance.conf"
_LIVE: Final = "20-live.conf"


@dataclass(frozen=True)
class File:
    """A file of a host: `template` of the role prints `data`; `validate` is a command that must accept it first."""

    path: str
    template: str
    data: Mapping[str, Any]
    mode: str = "0644"
    validate: str | None = None


def shared_units(data: Mapping[str, Any]) -> list[File]:
    """Return the units that all instances of a host share."""
    return [File(f"{UNITS}/{name}", f"{name}.j2", {**data, "probe": PROBE, "metrics": METRICS}) for name in _SHARED]


def instance_folder(name: str) -> str:
    """Return the folder of an instance."""
    return f"{CONFIG}/{name}"


def generation_folder(name: str, digest: str) -> str:
    """Return the folder of a generation: all that its engine reads, beside runtime and snapshots."""
    return f"{instance_folder(name)}/generations/{digest}"


def dropin_folders(name: str) -> dict[str, str]:
    """Return the folders of an instance's drop-ins: of its engines, its listener, the proxy behind that, its probe."""
    units = {
        "engine": f"vllm@{name}.service",
        "listener": listener_of(name),
        "proxy": f"vllm-proxy@{name}.service",
        "probe": f"vllm-probe@{name}.service",
    }
    return {kind: f"{UNITS}/{unit}.d" for kind, unit in units.items()}


def dropin_files(name: str, *, engine: Mapping[str, Any], listener: Mapping[str, Any]) -> list[File]:
    """Return the drop-ins of an instance that no generation decides: the order of starts, and where it listens."""
    folders = dropin_folders(name)
    return [
        File(f"{folders['engine']}/{_DROPIN}", f"vllm@.service.d/{_DROPIN}.j2", engine),
        File(f"{folders['listener']}/{_DROPIN}", f"vllm-proxy@.socket.d/{_DROPIN}.j2", listener),
    ]


def links(name: str, digest: str) -> dict[str, str]:
    """Return the symbolic links of a generation and of its instance: path to target.

    Through `engine.sock` and `current` the proxy finds the live engine at every connection, so that one rename of
    `current` switches to another. The unit's drop-ins are linked by the module vllm_generation, before every start.
    """
    generation, folders = generation_folder(name, digest), dropin_folders(name)
    joined = f"{instance_folder(name)}/current/join.conf"
    return {
        f"{generation}/run": run_folder(name, digest),
        f"{generation}/engine.sock": f"{run_folder(name, digest)}/api.sock",
        f"{folders['proxy']}/{_LIVE}": joined,
        f"{folders['probe']}/{_LIVE}": joined,
    }


def read_by(name: str, digest: str) -> dict[str, list[str]]:
    """Return the files that the units of an instance read when they start."""
    generation = generation_folder(name, digest)
    return {
        unit_of(name, digest): [
            f"{generation}/engine.yaml",
            f"{generation}/engine.env",
            f"{UNITS}/{unit_of(name, digest)}",
        ],
        listener_of(name): [f"{dropin_folders(name)['listener']}/{_DROPIN}", f"{UNITS}/vllm-proxy@.service"],
    }


def reason_of(result: Mapping[str, Any]) -> str:
    """Return the last error line of a failed `validate`, or the command that could not be run.

    Where vLLM misreads a flag that a key of the inventory decides, the key is named.
    """
    lines = str(result.get("stderr", "")).strip().splitlines()
    if lines:
        flags = re.findall(r"--([a-z0-9-]+)", lines[-1]) if " misreads its arguments: " in lines[-1] else []
        owner = next((owner for owner in map(owner_of, flags) if owner), None)
        return f"{lines[-1]}; {owner}" if owner else lines[-1]
    if "cmd" in result:
        return f"{str(result['cmd']).split()[0]} cannot be run; run the role vllm_runtime first"
    return str(result.get("msg", "no reason given"))
