"""Files of the units of a vLLM host: their paths, the role's templates for them, and the units that read them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve.vllm._arguments import owner_of
from rackserve.vllm._units import listener_of, unit_of

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG: Final = "/etc/vllm/instances"
LIB: Final = "/usr/local/lib/rackserve"
PARSER: Final = f"{LIB}/parse_arguments.py"
_PROBE: Final = f"{LIB}/vllm_probe.py"
_GOLDEN: Final = "/var/lib/rackserve/probe"
_UNITS: Final = "/etc/systemd/system"
# Textfile directory of Debian's node exporter.
_METRICS: Final = "/var/lib/prometheus/node-exporter"
# Units that differ between instances, by a drop-in each: the engine, its listener, and the proxy behind that.
_WITH_DROPIN: Final = ("vllm@.service", "vllm-proxy@.socket", "vllm-proxy@.service")
_SHARED: Final = (*_WITH_DROPIN, "vllm-probe@.service", "vllm-probe@.timer")
_DROPIN: Final = "10-instance.conf"
_GPUS: Final = "vllm@.service.d/10-cuda.conf"


@dataclass(frozen=True)
class File:
    """A file of a host: `template` of the role prints `data`; `validate` is a command that must accept it first."""

    path: str
    template: str
    data: Mapping[str, Any]
    mode: str = "0644"
    validate: str | None = None


def unit_files(data: Mapping[str, Any]) -> list[File]:
    """Return the units that all instances of a host share."""
    return [File(f"{_UNITS}/{name}", f"{name}.j2", {**data, "probe": _PROBE, "metrics": _METRICS}) for name in _SHARED]


def gpu_access() -> File:
    """Return the drop-in that gives all engines of a host access to its GPUs."""
    return File(f"{_UNITS}/{_GPUS}", f"{_GPUS}.j2", {})


def dropin_folders(name: str) -> list[str]:
    """Return the folders of an instance's drop-ins."""
    return [f"{_UNITS}/{kind.replace('@', f'@{name}')}.d" for kind in _WITH_DROPIN]


def dropin_files(
    name: str, *, engine: Mapping[str, Any], listener: Mapping[str, Any], proxy: Mapping[str, Any]
) -> list[File]:
    """Return the drop-ins of an instance: for its engine's unit, its listener and the proxy behind that."""
    return [
        File(f"{folder}/{_DROPIN}", f"{kind}.d/{_DROPIN}.j2", data)
        for folder, kind, data in zip(dropin_folders(name), _WITH_DROPIN, (engine, listener, proxy), strict=True)
    ]


def read_by(name: str, root: str) -> dict[str, list[str]]:
    """Return the files that the units of an instance read when they start."""
    _, listener, proxy = dropin_folders(name)
    return {
        unit_of(name): [
            f"{CONFIG}/{name}.yaml",
            f"{CONFIG}/{name}.env",
            f"{_UNITS}/vllm@.service",
            f"{_UNITS}/{_GPUS}",
            f"{root}/current",
        ],
        listener_of(name): [f"{listener}/{_DROPIN}", f"{proxy}/{_DROPIN}", f"{_UNITS}/vllm-proxy@.service"],
    }


def instance_files(name: str) -> list[str]:
    """Return the files of an instance, which are removed with it."""
    return [
        *(f"{CONFIG}/{name}.{suffix}" for suffix in ("yaml", "env", "probe.json")),
        *dropin_folders(name),
        f"/run/rackserve/probe/{name}.json",
        f"{_GOLDEN}/{name}.golden.json",
        f"{_METRICS}/rackserve_instance_{name}.prom",
    ]


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
