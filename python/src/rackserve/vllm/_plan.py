"""The plan of a vLLM host: every file of its instances, and which units run, are restarted or removed.

It is made once a run from the inventory, the bundle and what was read on the host; the role vllm prints it.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal

from rackserve import gpu
from rackserve._schema import Converting
from rackserve.errors import InputError
from rackserve.vllm import _files
from rackserve.vllm._chat_templates import FOLDER_ON_HOST, find_own
from rackserve.vllm._compatibility import validate_release
from rackserve.vllm._config import cli_args, config_of, environment_of
from rackserve.vllm._instances import parse_instances
from rackserve.vllm._models import model_findings
from rackserve.vllm._notices import tool_notices
from rackserve.vllm._probe_settings import probe_settings
from rackserve.vllm._releases import release_of
from rackserve.vllm._resolve import adapter_sources, resolve_paths
from rackserve.vllm._units import engine_address, listener_of, start_plan, timer_of, unit_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.bundle import Manifest
    from rackserve.vllm._files import File
    from rackserve.vllm._instances import Instance
    from rackserve.vllm._releases import Release

_ENGINE_EXIT_S: Final = 30  # what an engine takes to exit after its requests have ended


class HostOptions(Converting):
    """The inputs of the role vllm besides the instances. Times are in seconds.

    Attributes:
        vllm: the release that the host runs.
        memory_max: MemoryMax of each instance's unit.
        root: root directory of the vLLM runtimes.
        hf_home: HF_HOME of the instances.
        site: the inventory's folder on the controller.
    """

    vllm: str
    flavour: Literal["cpu", "cuda"]
    listen_address: str
    allowed_clients: list[str]
    cpu_kvcache_gib: int
    shutdown_timeout: int
    start_timeout: int
    serial_starts: bool
    memory_max: str
    root: str
    hf_home: str
    site: Path

    @property
    def stop_timeout(self) -> int:
        """Time for the drain, and for the engine to exit after it."""
        return self.shutdown_timeout + _ENGINE_EXIT_S


@dataclass(frozen=True)
class HostState:
    """State that was read on a host.

    Attributes:
        gpus: of the host; none on a CPU host.
        adapters: text of adapter_config.json by the adapter's folder; None where the host has none.
        written: files of earlier runs in the folders of the instances and of the chat templates.
    """

    gpus: Sequence[gpu.Gpu] = ()
    adapters: Mapping[str, str | None] | None = None
    written: Sequence[str] = ()


@dataclass(frozen=True)
class InstancePlan:
    """One instance: its engine's configuration, and the order of its units.

    Attributes:
        url: where the listener of the instance is reached.
        model: first of the served names.
        cli_args: arguments before `--config`.
        engine: where the engine listens: a socket's path, or host:port.
        after: units that it starts after.
        restart_sec: delay of a restart.
    """

    name: str
    port: int
    url: str
    model: str
    task: str
    unit: str
    listener: str
    timer: str
    config: dict[str, Any]
    cli_args: list[str]
    environment: dict[str, str]
    probe: dict[str, Any]
    engine: str
    after: list[str]
    restart_sec: int


@dataclass(frozen=True)
class Removal:
    """Units and files of earlier runs that the inventory no longer has."""

    units: list[str]
    paths: list[str]
    chat_templates: list[str]


@dataclass(frozen=True)
class HostPlan:
    """All that the role vllm writes, starts and removes on a host.

    Attributes:
        units: files of the units that all instances share.
        dropins: drop-ins of the instances and of the kind of host, in `dropin_folders`.
        chat_templates: path on the host to file of the inventory.
        arguments: `--config` files, which vLLM's own parser reads first.
        settings: environment and probe settings of each instance.
        notes: sentences on the models and on what goes off by itself; they refuse nothing.
        read_by: files by the unit that reads them: a unit that started before they changed is restarted.
    """

    instances: list[InstancePlan]
    units: list[File]
    dropin_folders: list[str]
    dropins: list[File]
    chat_templates: dict[str, str]
    arguments: list[File]
    settings: list[File]
    read_by: dict[str, list[str]]
    removed: Removal
    notes: list[str]


def host_plan(
    raw: Sequence[dict[str, Any]], options: HostOptions, manifest: Manifest, bundle: Path, host: HostState
) -> HostPlan:
    """Return the plan of a host.

    Args:
        raw: its `vllm_instances`.
        options: the other inputs of the host.
        manifest: the bundle's.
        bundle: the bundle's folder on the controller, where adapters and chat templates are read.
        host: state read on it.

    Raises:
        InputError: naming everything in the inventory that does not fit the release, the bundle or the host.
    """
    found, release = parse_instances(raw), release_of(options.vllm)
    if not found:
        raise InputError("vllm_instances is empty; define at least one instance, or remove the host from its group")
    if problems := validate_release(found, release):
        raise InputError("vllm_instances: " + "; ".join(problems))
    sources = adapter_sources(manifest, bundle, host.adapters or {})
    findings = [
        finding
        for instance in found
        for finding in model_findings(
            instance, sources.snapshots, release, _capability_of(instance, options, host.gpus)
        )
    ]
    if refused := [finding.text for finding in findings if finding.refuses]:
        raise InputError("; ".join(refused))
    resolved = resolve_paths(found, sources, release, options.hf_home, options.site)
    starts = start_plan(found, serial=options.serial_starts)
    plans = [_instance_plan(instance, options, release, host.gpus, starts[instance.name]) for instance in resolved]
    own = [template for template in (find_own(instance, options.site) for instance in found) if template]
    templates = {template.on_host: str(template.source) for template in own}
    dropins = [_files.gpu_access()] if options.flavour == "cuda" else []
    dropins += [file for plan in plans for file in _dropins(plan, options)]
    return HostPlan(
        instances=plans,
        units=_files.unit_files(_unit_data(options)),
        dropin_folders=[str(PurePosixPath(file.path).parent) for file in dropins],
        dropins=dropins,
        chat_templates=templates,
        arguments=[_arguments(plan, options) for plan in plans],
        settings=[file for plan in plans for file in _settings(plan)],
        read_by={unit: paths for plan in plans for unit, paths in _files.read_by(plan.name, options.root).items()},
        removed=_removal(host.written, {plan.name for plan in plans}, templates),
        notes=[*(finding.text for finding in findings), *tool_notices(found, release, sources.snapshots, options.site)],
    )


def _capability_of(instance: Instance, options: HostOptions, gpus: Sequence[gpu.Gpu]) -> tuple[int, int] | None:
    return gpu.capability_of(instance.gpus, gpus) if options.flavour == "cuda" else None


def _instance_plan(
    instance: Instance, options: HostOptions, release: Release, gpus: Sequence[gpu.Gpu], start: Mapping[str, Any]
) -> InstancePlan:
    visible = gpu.visible_devices(instance.gpus, gpus, by_uuid=release.gpus_by_uuid)
    engine = engine_address(instance, release)
    return InstancePlan(
        name=instance.name,
        port=instance.port,
        url=f"http://{options.listen_address}:{instance.port}",
        model=instance.served_names[0],
        task=instance.task,
        unit=unit_of(instance.name),
        listener=listener_of(instance.name),
        timer=timer_of(instance.name),
        config=config_of(
            instance,
            release,
            flavour=options.flavour,
            shutdown_timeout=options.shutdown_timeout,
            capability=gpu.capability_of(instance.gpus, gpus),
        ),
        cli_args=cli_args(instance, release),
        environment=environment_of(
            instance.model_copy(update={"gpus": visible}), release, options.flavour, options.cpu_kvcache_gib
        ),
        probe=probe_settings(
            instance, engine, {"vllm": options.vllm, "flavour": options.flavour}, options.start_timeout
        ),
        engine=engine,
        after=start["after"],
        restart_sec=start["restart_sec"],
    )


def _unit_data(options: HostOptions) -> dict[str, Any]:
    if not re.fullmatch(r"infinity|\d+(\.\d+)?%|\d+[KMGT]?", options.memory_max):
        raise InputError(f"vllm_memory_max is {options.memory_max!r}; set a share (95%), an amount (200G) or infinity")
    return {
        # Longer than five starts that fail as slowly as they can, or such a unit would be restarted for ever.
        "start_limit_sec": 5 * (options.start_timeout + options.stop_timeout + 60),
        "start_timeout": options.start_timeout,
        "stop_timeout": options.stop_timeout,
        "memory_max": options.memory_max,
        "hf_home": options.hf_home,
        "root": options.root,
        "clients": list(dict.fromkeys([options.listen_address, *options.allowed_clients])),
    }


def _dropins(plan: InstancePlan, options: HostOptions) -> list[File]:
    listens = {
        "address": f"{options.listen_address}:{plan.port}",
        "port": plan.port,
        "table": f"table inet rackserve_proxy_{plan.name}",
    }
    engine = {"after": plan.after, "restart_sec": plan.restart_sec}
    return _files.dropin_files(plan.name, engine=engine, listener=listens, proxy={"engine": plan.engine})


def _arguments(plan: InstancePlan, options: HostOptions) -> File:
    args = ["--unit", plan.unit, "--user", "vllm", "%s", *plan.cli_args]
    parser = [f"{options.root}/current/bin/python", "-I", "-B", _files.PARSER]
    return _files.File(
        f"{_files.CONFIG}/{plan.name}.yaml",
        "instance.yaml.j2",
        {"vllm": options.vllm, "config": plan.config},
        validate=shlex.join([*parser, *args]),
    )


def _settings(plan: InstancePlan) -> list[File]:
    base = f"{_files.CONFIG}/{plan.name}"
    return [
        _files.File(f"{base}.probe.json", "instance.probe.json.j2", plan.probe),
        _files.File(f"{base}.env", "instance.env.j2", plan.environment, mode="0600"),
    ]


def _removal(written: Sequence[str], names: set[str], templates: Mapping[str, str]) -> Removal:
    """Return the files of earlier runs that this one does not write."""
    paths = [PurePosixPath(path) for path in written]
    files = [path for path in paths if str(path.parent) == _files.CONFIG and path.suffix == ".yaml"]
    removed = sorted({path.stem for path in files} - names)
    return Removal(
        units=[unit for name in removed for unit in (timer_of(name), unit_of(name))],
        paths=[path for name in removed for path in _files.instance_files(name)],
        chat_templates=[str(p) for p in paths if str(p.parent) == FOLDER_ON_HOST and str(p) not in templates],
    )
