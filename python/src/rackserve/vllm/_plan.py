"""The plan of a vLLM host: every file of its instances, and which units run, are restarted or removed.

It is made once a run from the inventory, the bundle and what was read on the host; the role vllm prints it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Any, Final, Literal

from rackserve import gpu
from rackserve._schema import Converting
from rackserve.errors import InputError
from rackserve.vllm import _files
from rackserve.vllm._chat_templates import find_own
from rackserve.vllm._compatibility import validate_release
from rackserve.vllm._config import cli_args, config_of, environment_of
from rackserve.vllm._instances import parse_instances
from rackserve.vllm._models import model_findings
from rackserve.vllm._notices import tool_notices
from rackserve.vllm._probe_settings import golden_identity, probe_settings
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
_DIGEST_DIGITS: Final = 10
_VISIBLE: Final = ("CUDA_VISIBLE_DEVICES",)


class HostOptions(Converting):
    """The inputs of the role vllm besides the instances. Times are in seconds.

    Attributes:
        vllm: the release that the host runs.
        release: its name in the folder of the runtimes, of the release and its lock's digest.
        templates: the role's templates on the controller.
        memory_max: MemoryMax of each instance's unit.
        root: root directory of the vLLM runtimes.
        hf_home: HF_HOME of the instances.
        site: the inventory's folder on the controller.
    """

    vllm: str
    release: str
    templates: Path
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

    @property
    def runtime(self) -> str:
        """Folder of the runtime on the host."""
        return f"{self.root}/releases/{self.release}"


@dataclass(frozen=True)
class HostState:
    """State that was read on a host.

    Attributes:
        gpus: of the host; none on a CPU host.
        adapters: text of adapter_config.json by the adapter's folder; None where the host has none.
        written: names of the instances of earlier runs.
    """

    gpus: Sequence[gpu.Gpu] = ()
    adapters: Mapping[str, str | None] | None = None
    written: Sequence[str] = ()


@dataclass(frozen=True)
class InstancePlan:
    """One instance: the generation that the inventory wants, and the order of its units.

    Attributes:
        digest: name of the generation: it changes with everything that the engine is started with.
        generation: its folder on the host.
        url: where the listener of the instance is reached.
        model: first of the served names.
        cli_args: arguments before `--config`.
        runtime: folder of the vLLM environment on the host.
        identity: what model, revision, types and GPUs answer: the same ones answer alike.
        digests: of `environment`, `probe` and the `settings` of the unit, to tell what two generations differ in.
        engine: where the engine listens: a socket's path, or host:port.
        after: instances that it starts after.
        restart_sec: delay of a restart.
    """

    name: str
    digest: str
    generation: str
    port: int
    url: str
    model: str
    served_names: list[str]
    task: str
    unit: str
    listener: str
    timer: str
    config: dict[str, Any]
    cli_args: list[str]
    runtime: str
    environment: dict[str, str]
    probe: dict[str, Any]
    identity: str
    digests: dict[str, str]
    engine: str
    after: list[str]
    restart_sec: int


@dataclass(frozen=True)
class HostPlan:
    """All that the role vllm writes, starts and removes on a host.

    Attributes:
        units: files of the units that all instances share.
        folders: of the instances, their generations and the drop-ins that these share.
        dropins: drop-ins of the instances.
        chat_templates: path on the host to file of the inventory.
        arguments: `--config` files, which vLLM's own parser reads first.
        settings: the other files of each generation; the last one says that it is complete.
        links: symbolic links, path to target.
        notes: sentences on the models and on what goes off by itself; they refuse nothing.
        read_by: files by the unit that reads them: a unit that started before they changed is restarted.
        removed: instances of earlier runs that the inventory no longer has, by `name`.
    """

    instances: list[InstancePlan]
    units: list[File]
    folders: list[str]
    dropins: list[File]
    chat_templates: dict[str, str]
    arguments: list[File]
    settings: list[File]
    links: dict[str, str]
    read_by: dict[str, list[str]]
    removed: list[dict[str, str]]
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
    unit = _unit_data(options)
    plans = [
        _instance_plan(instance, options, release, host.gpus, {**starts[instance.name], "unit": unit})
        for instance in resolved
    ]
    own = [template for template in (find_own(instance, options.site) for instance in found) if template]
    templates = {template.on_host: str(template.source) for template in own}
    units = {plan.name: plan.unit for plan in plans}
    dropins = [file for plan in plans for file in _dropins(plan, options, [units[name] for name in plan.after])]
    clients = list(dict.fromkeys([options.listen_address, *options.allowed_clients]))
    return HostPlan(
        instances=plans,
        units=_files.shared_units({"clients": clients}),
        folders=_folders(plans),
        dropins=dropins,
        chat_templates=templates,
        arguments=[_arguments(plan, options) for plan in plans],
        settings=[file for plan in plans for file in _settings(plan, options, unit)],
        links={path: target for plan in plans for path, target in _files.links(plan.name, plan.digest).items()},
        read_by={unit: paths for plan in plans for unit, paths in _files.read_by(plan.name, plan.digest).items()},
        removed=[{"name": name} for name in sorted(set(host.written) - {plan.name for plan in plans})],
        notes=[*(finding.text for finding in findings), *tool_notices(found, release, sources.snapshots, options.site)],
    )


def _folders(plans: Sequence[InstancePlan]) -> list[str]:
    found: list[str] = []
    for plan in plans:
        own = _files.instance_folder(plan.name)
        found += [own, f"{own}/generations", plan.generation, *_files.dropin_folders(plan.name).values()]
    return found


def _capability_of(instance: Instance, options: HostOptions, gpus: Sequence[gpu.Gpu]) -> tuple[int, int] | None:
    return gpu.capability_of(instance.gpus, gpus) if options.flavour == "cuda" else None


def _instance_plan(
    instance: Instance, options: HostOptions, release: Release, gpus: Sequence[gpu.Gpu], start: Mapping[str, Any]
) -> InstancePlan:
    """Return the plan of an instance; its generation is named by what it would be without its name."""
    unnamed = _generation(instance, options, release, gpus, {**start, "digest": ""})
    digest = _digest(unnamed, options, start["unit"])
    return _generation(instance, options, release, gpus, {**start, "digest": digest})


def _digest(plan: InstancePlan, options: HostOptions, unit: Mapping[str, Any]) -> str:
    """Return the name of a generation: of everything that its engine is started with.

    The order of starts and the address for clients are the instance's, so they leave its generation as it is.
    """
    parts = {key: value for key, value in asdict(plan).items() if key not in {"port", "url", "after", "restart_sec"}}
    return _short_digest([parts, options.flavour, dict(unit)])


def _template_texts(options: HostOptions) -> list[str]:
    return [(options.templates / name).read_text(encoding="utf-8") for name in _files.GENERATION_TEMPLATES]


def _short_digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_DIGEST_DIGITS]


def _generation(
    instance: Instance, options: HostOptions, release: Release, gpus: Sequence[gpu.Gpu], start: Mapping[str, Any]
) -> InstancePlan:
    digest = start["digest"]
    environment = environment_of(
        instance.model_copy(update={"gpus": gpu.visible_devices(instance.gpus, gpus, by_uuid=release.gpus_by_uuid)}),
        release,
        options.flavour,
        options.cpu_kvcache_gib,
    )
    engine = engine_address(instance, release, digest)
    probe = probe_settings(instance, engine, {"vllm": options.vllm, "flavour": options.flavour}, options.start_timeout)
    return InstancePlan(
        name=instance.name,
        digest=digest,
        generation=_files.generation_folder(instance.name, digest),
        port=instance.port,
        url=f"http://{options.listen_address}:{instance.port}",
        model=instance.served_names[0],
        served_names=[*instance.served_names, *(adapter.name for adapter in instance.lora)],
        task=instance.task,
        unit=unit_of(instance.name, digest),
        listener=listener_of(instance.name),
        timer=timer_of(instance.name),
        config=config_of(
            instance,
            release,
            flavour=options.flavour,
            engine=engine,
            shutdown_timeout=options.shutdown_timeout,
            capability=gpu.capability_of(instance.gpus, gpus),
        ),
        cli_args=cli_args(instance, release),
        runtime=options.runtime,
        environment=environment,
        probe=probe,
        identity=golden_identity(instance, {"vllm": options.vllm, "flavour": options.flavour}),
        digests={
            "environment": _short_digest(environment),
            "probe": _short_digest({**probe, "engine": ""}),
            "settings": _short_digest([start["unit"], options.flavour, _template_texts(options)]),
        },
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
    }


def _dropins(plan: InstancePlan, options: HostOptions, after: Sequence[str]) -> list[File]:
    listens = {
        "address": f"{options.listen_address}:{plan.port}",
        "port": plan.port,
        "table": f"table inet rackserve_proxy_{plan.name}",
    }
    engine = {"after": list(after), "restart_sec": plan.restart_sec}
    return _files.dropin_files(plan.name, engine=engine, listener=listens)


def _arguments(plan: InstancePlan, options: HostOptions) -> File:
    args = ["--unit", plan.unit, "--user", "vllm", "%s", *plan.cli_args]
    parser = [f"{options.runtime}/bin/python", "-I", "-B", _files.PARSER]
    return _files.File(
        f"{plan.generation}/engine.yaml",
        "engine.yaml.j2",
        {"vllm": options.vllm, "config": plan.config},
        validate=shlex.join([*parser, *args]),
    )


def _settings(plan: InstancePlan, options: HostOptions, unit: Mapping[str, Any]) -> list[File]:
    on_socket = plan.engine.startswith("/")
    engine = {**unit, "name": plan.name, "digest": plan.digest, "generation": plan.generation, "probe": _files.PROBE}
    complete = {
        "name": plan.name,
        "digest": plan.digest,
        "vllm": options.vllm,
        "runtime": options.runtime,
        "model": plan.config.get("model", plan.model),
        "revision": plan.config["revision"],
        "served_names": plan.served_names,
        "task": plan.task,
        "engine": plan.engine,
        "identity": plan.identity,
        "config": plan.config,
        "visible": {key: plan.environment[key] for key in _VISIBLE if key in plan.environment},
        **plan.digests,
        "unit": plan.unit,
        "start_timeout": options.start_timeout,
        "shutdown_timeout": options.shutdown_timeout,
    }
    joined = {
        "engine": f"{_files.instance_folder(plan.name)}/current/engine.sock" if on_socket else plan.engine,
        "unit": "" if on_socket else plan.unit,
    }
    return [
        _files.File(f"{plan.generation}/probe.json", "json.j2", plan.probe),
        _files.File(f"{plan.generation}/engine.env", "engine.env.j2", plan.environment, mode="0600"),
        _files.File(f"{plan.generation}/join.conf", "join.conf.j2", joined),
        _files.File(
            f"{_files.UNITS}/{plan.unit}",
            "engine.service.j2",
            {**engine, "runtime": options.runtime, "on_gpus": options.flavour == "cuda"},
        ),
        _files.File(f"{plan.generation}/generation.json", "json.j2", complete),
    ]
