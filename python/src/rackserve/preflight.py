"""What is wrong with a host, before anything on it changes: the inventory, the bundle and the host compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rackserve import adapters, capacity, chat_templates, driver, gate, host_rows, release_fit
from rackserve.bundle.verify_bundle import Refused, refuse_replay
from rackserve.errors import InputError
from rackserve.host_types import Judgement
from rackserve.instances import parse_instances
from rackserve.releases import release_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.bundle import Manifest, Runtime
    from rackserve.driver import DriverWish
    from rackserve.gate import GpuFacts, Row
    from rackserve.host_types import Host, HostFacts, Wanted
    from rackserve.instances import Instance
    from rackserve.releases import Release

EXPORTER_PARTS: Final = ("locks/gpu-exporter.txt", "wheels/gpu-exporter")
_RELEASE_FACTOR: Final = 5  # unpacked release with bytecode / wheels: 3.45 GB / 0.86 GB measured, and room to work


def find_runtime(manifest: Manifest, vllm: str, flavour: str, python: str) -> Runtime:
    """Return the bundle's runtime for a host.

    Raises:
        InputError: naming the runtimes that the bundle has.
    """
    for runtime in manifest.runtimes:
        if (runtime.vllm, runtime.flavour, runtime.python) == (vllm, flavour, python):
            return runtime
    has = ", ".join(f"{r.vllm} ({r.flavour}, Python {r.python})" for r in manifest.runtimes) or "none"
    raise InputError(
        f"the bundle has no vLLM {vllm} for {flavour} and Python {python}, it has {has}; "
        "set stack_runtime.vllm, or add the runtime to bundle.yml and build the bundle again"
    )


def parts_for(
    manifest: Manifest,
    release: str,
    instances: Sequence[dict[str, Any]],
    *,
    vllm: str,
    flavour: str,
    python: str,
    wish: DriverWish | None = None,
) -> tuple[str, ...]:
    """Return the paths of the bundle that a host needs; one that serves no model needs only its packages.

    `wish` is what the inventory says of the host's driver, None where it has none.

    Raises:
        InputError: when the instances are wrong, or the bundle lacks the runtime.
    """
    parts = [repository.path for repository in manifest.repositories if repository.release == release]
    chosen = driver.find_set(wish, manifest, release) if wish else None
    if chosen:
        parts.append(chosen.path)
    if flavour == "cuda" and (instances or chosen):
        parts += [path for path in EXPORTER_PARTS if manifest.under((path,))]
    if instances:
        runtime = find_runtime(manifest, vllm, flavour, python)
        wanted = wanted_snapshots(instances)
        parts += [runtime.lock, runtime.wheels]
        parts += sorted(model.path for model in manifest.models if (model.repo, model.revision) in wanted)
    return tuple(parts)


def wanted_snapshots(instances: Sequence[dict[str, Any]]) -> frozenset[tuple[str, str]]:
    """Return repository and commit of every model and adapter that instances need.

    Raises:
        InputError: when the instances are wrong.
    """
    return frozenset().union(*(instance.snapshots for instance in parse_instances(instances)))


def adapter_sources(manifest: Manifest, bundle: Path, on_host: Mapping[str, str | None]) -> adapters.Sources:
    """Return where adapters are read: in the bundle, and what a host said of its own folders."""
    return adapters.Sources({(model.repo, model.revision): bundle / model.path for model in manifest.models}, on_host)


def placed(
    instances: Sequence[Instance], sources: adapters.Sources, release: Release, hf_home: str, site: Path
) -> list[Instance]:
    """Return instances as an engine is told of them: adapters and templates by their paths on the host.

    Raises:
        InputError: when one of these cannot be read or does not fit.
    """
    found = []
    for instance in instances:
        template = chat_templates.find_template(instance, site, sources.snapshots, hf_home)
        told = instance.model_copy(update={"chat_template": template.on_host}) if template else instance
        found.append(adapters.placed(told, sources, release, hf_home))
    return found


def judge(wanted: Wanted, manifest: Manifest, host: Host, bundle: Path) -> Judgement:
    """Compare what the inventory asks of a host with the bundle and the host.

    What a host needs of disk and memory depends on its instances, so it is only looked at when these are right.

    Args:
        wanted: what the inventory asks of the host.
        manifest: the bundle's.
        host: what the host is.
        bundle: the bundle's folder on the controller, whose models' configurations are read.
    """
    rows = host_rows.system_rows(host.facts, manifest)
    problems = _replay_problems(wanted, manifest, host.facts)
    if wanted.serves:
        found = _instance_problems(wanted, manifest) + _runtime_problems(wanted, manifest)
        problems += found or _file_problems(wanted, manifest, host.facts, bundle)
        rows += _serving_rows(wanted, manifest, host, bundle)
    if not problems:
        rows += _room_rows(wanted, manifest, host)
        problems = _capacity_problems(wanted, manifest, bundle, host.gpus)
    return Judgement(problems, rows)


def _serving_rows(wanted: Wanted, manifest: Manifest, host: Host, bundle: Path) -> list[Row]:
    """Return the rows about Python and GPUs; none where the inventory says too little to judge by."""
    try:
        release, instances = release_of(wanted.vllm), parse_instances(wanted.instances)
    except InputError:
        return []
    rows = [host_rows.python_row(wanted, host.facts, release)]
    if wanted.flavour != "cuda" or host.gpus is None:
        return rows
    plan = driver.plan_of(wanted.driver, manifest, host.facts.release, host.facts.drivers)
    cached = _has_compiled_kernels(wanted, manifest, bundle)
    rows += gate.gpu_rows(host.gpus, instances, release, plan, cached_kernels=cached)
    group = gate.group_row(host.name, host.peers)
    return [*rows, group] if group else rows


def _has_compiled_kernels(wanted: Wanted, manifest: Manifest, bundle: Path) -> bool:
    try:
        lock = bundle / find_runtime(manifest, wanted.vllm, wanted.flavour, wanted.python).lock
    except InputError:
        return False
    return lock.is_file() and "\nflashinfer-jit-cache==" in lock.read_text(encoding="utf-8")


def _replay_problems(wanted: Wanted, manifest: Manifest, facts: HostFacts) -> list[str]:
    try:
        refuse_replay(manifest.name, manifest.version, manifest.id, dict(facts.floor), wanted.downgrade_reason)
    except Refused as refused:
        return [f"the bundle cannot be installed here: {refused}"]
    return []


def _instance_problems(wanted: Wanted, manifest: Manifest) -> list[str]:
    try:
        instances = parse_instances(wanted.instances)
        found = release_fit.problems_of(instances, release_of(wanted.vllm))
    except InputError as wrong:
        return [str(wrong)]
    carried = {(model.repo, model.revision) for model in manifest.models}
    return found + [
        f"instance {instance.name!r}: {instance.model.repo} at {instance.model.revision} is not in the bundle, "
        f"which has {', '.join(f'{repo} at {revision}' for repo, revision in sorted(carried)) or 'no model'}; "
        "set model.repo and model.revision, or add the model to bundle.yml and build the bundle again"
        for instance in instances
        if (instance.model.repo, instance.model.revision) not in carried
    ]


def _file_problems(wanted: Wanted, manifest: Manifest, facts: HostFacts, bundle: Path) -> list[str]:
    """Look into what instances name besides their model: adapters and chat templates."""
    sources, release = adapter_sources(manifest, bundle, facts.adapters), release_of(wanted.vllm)
    found: list[str] = []
    for instance in parse_instances(wanted.instances):
        found += adapters.problems_of(instance, sources, release)
        try:
            chat_templates.find_template(instance, Path(wanted.site), sources.snapshots, "")
        except InputError as wrong:
            found.append(str(wrong))
    return found


def _runtime_problems(wanted: Wanted, manifest: Manifest) -> list[str]:
    try:
        find_runtime(manifest, wanted.vllm, wanted.flavour, wanted.python)
    except InputError as wrong:
        return [str(wrong)]
    return []


def _capacity_problems(wanted: Wanted, manifest: Manifest, bundle: Path, gpus: GpuFacts | None) -> list[str]:
    """Name the instances that cannot hold one request of their max_model_len; none where a GPU's memory is unknown."""
    folders = {(model.repo, model.revision): bundle / model.path for model in manifest.models}
    found = []
    for instance in parse_instances(wanted.instances):
        question = capacity_question(
            instance,
            folders[instance.model.repo, instance.model.revision],
            vllm=wanted.vllm,
            flavour=wanted.flavour,
            cpu_kvcache_gib=wanted.cpu_kvcache_gib,
            gpus=gpus,
        )
        problem = capacity.problem_of(question) if question else None
        found += [problem] if problem else []
    return found


def capacity_question(
    instance: Instance, model: Path, *, vllm: str, flavour: str, cpu_kvcache_gib: int, gpus: GpuFacts | None
) -> capacity.Wanted | None:
    """Return what decides an instance's capacity on a host; None where its GPU's memory is unknown.

    Args:
        instance: as the inventory has it.
        model: its model's folder in the bundle.
        vllm: the host's release.
        flavour: `cpu` or `cuda`.
        cpu_kvcache_gib: memory of the KV cache on a CPU, in GiB.
        gpus: what was read of the host's GPUs.
    """
    cpu = flavour == "cpu"
    gpu_bytes = None if cpu or gpus is None else gate.gpu_bytes_of(instance, gpus)
    if not cpu and gpu_bytes is None:
        return None
    return capacity.Wanted(
        name=instance.name,
        model=model,
        release=vllm,
        max_model_len=instance.max_model_len,
        max_num_seqs=instance.max_num_seqs,
        extra_args=instance.extra_args,
        gpu_bytes=gpu_bytes,
        cpu_kv_bytes=cpu_kvcache_gib << 30 if cpu else None,
        tensor_parallel=instance.tensor_parallel,
        dtype=instance.dtype,
        quantization=instance.quantization,
        kv_cache_dtype=instance.kv_cache_dtype,
        gpu_memory_utilization=None if cpu else instance.gpu_memory_utilization,
    )


def _room_rows(wanted: Wanted, manifest: Manifest, host: Host) -> list[Row]:
    """Return the rows about disk, where what is still to come counts, and on a CPU about memory."""
    facts = host.facts
    parts = parts_for(
        manifest, facts.release, wanted.instances, vllm=wanted.vllm, flavour=wanted.flavour, python=wanted.python
    )
    carried = sum(entry.size for entry in manifest.under(parts))
    need = {wanted.store: max(0, carried - facts.stored_bytes)}
    for runtime in manifest.runtimes if wanted.serves else ():
        chosen = (runtime.vllm, runtime.flavour, runtime.python) == (wanted.vllm, wanted.flavour, wanted.python)
        if chosen and runtime.id not in facts.releases:
            wheels = sum(entry.size for entry in manifest.under((runtime.wheels,)))
            need[wanted.releases] = _RELEASE_FACTOR * wheels
    rows = host_rows.disk_rows(need, facts.free_bytes)
    if wanted.serves and wanted.flavour == "cpu" and host.gpus is not None:
        instances = parse_instances(wanted.instances)
        memory = host_rows.memory_row(instances, manifest, wanted.cpu_kvcache_gib, host.gpus.host.memory)
        rows += [memory] if memory else []
    return rows
