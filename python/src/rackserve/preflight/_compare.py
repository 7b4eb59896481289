"""Compares the inventory's specification of a host with the bundle and the host, before anything changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rackserve import capacity
from rackserve.bundle import pins
from rackserve.errors import InputError
from rackserve.gpu import capability_of, cuda_bytes_of
from rackserve.preflight import _driver, _host_rows
from rackserve.preflight._gpu_table import gpu_rows, group_row
from rackserve.preflight._kv_rows import checkpoint_kv_cache, stores_fp8
from rackserve.preflight._parts import find_runtime, parts_for
from rackserve.preflight._types import PreflightResult
from rackserve.programs.verify_bundle import BundleRejected, refuse_rollback
from rackserve.vllm import (
    adapter_sources,
    find_template,
    model_findings,
    parse_instances,
    release_of,
    validate_adapters,
    validate_release,
)

if TYPE_CHECKING:
    from rackserve.bundle import Manifest
    from rackserve.gpu import GpuFacts
    from rackserve.preflight._rows import Row
    from rackserve.preflight._types import Host, HostFacts, HostSpec
    from rackserve.vllm import Instance

_RELEASE_FACTOR: Final = 5  # unpacked release with bytecode / wheels: 3.45 GB / 0.86 GB measured, and room to work


def compare(spec: HostSpec, manifest: Manifest, host: Host, bundle: Path) -> PreflightResult:
    """Compare the inventory's specification of a host with the bundle and the host.

    Disk and memory requirements depend on the instances, so they are only checked when these are valid.

    Args:
        spec: the inventory's specification of the host.
        manifest: the bundle's.
        host: the host as it was read.
        bundle: the bundle's folder on the controller, whose models' configurations are read.
    """
    rows = _host_rows.system_rows(host.facts, manifest)
    problems = _rollback_problems(spec, manifest, host.facts)
    if spec.serves:
        found = _instance_problems(spec, manifest) + _runtime_problems(spec, manifest)
        problems += found or _file_problems(spec, manifest, host, bundle)
        rows += _serving_rows(spec, manifest, host, bundle)
    if not problems:
        rows += _room_rows(spec, manifest, host)
        problems = _capacity_problems(spec, manifest, bundle, host.gpus)
    return PreflightResult(problems, rows)


def _serving_rows(spec: HostSpec, manifest: Manifest, host: Host, bundle: Path) -> list[Row]:
    """Return the rows about Python and GPUs; none where the inventory is incomplete."""
    try:
        release, instances = release_of(spec.vllm), parse_instances(spec.instances)
    except InputError:
        return []
    user = _host_rows.service_user_row(host.facts.vllm_uid, removes_ipc=host.facts.removes_ipc)
    rows = [_host_rows.python_row(spec, host.facts, release), *([user] if user else [])]
    if spec.flavour != "cuda" or host.gpus is None:
        return rows
    plan = _driver.plan_of(spec.driver, manifest, host.facts.release, host.facts.drivers)
    cached = _has_compiled_kernels(spec, manifest, bundle)
    stored = {instance.name: _stored_kv_cache(instance, manifest, bundle) for instance in instances}
    rows += gpu_rows(host.gpus, instances, release, plan, cached_kernels=cached, stored=stored)
    group = group_row(host.name, host.peers)
    return [*rows, group] if group else rows


def _has_compiled_kernels(spec: HostSpec, manifest: Manifest, bundle: Path) -> bool:
    try:
        lock = bundle / find_runtime(manifest, spec.vllm, spec.flavour, spec.python).lock
        return lock.is_file() and "flashinfer-jit-cache" in pins(lock.read_text(encoding="utf-8"))
    except InputError:
        return False


def _stored_kv_cache(instance: Instance, manifest: Manifest, bundle: Path) -> str | None:
    """Return the type of the KV cache that an instance's checkpoint asks for; None where it cannot be read."""
    path = manifest.model_paths.get((instance.model.repo, instance.model.revision))
    try:
        config = json.loads((bundle / path / "config.json").read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return None
    return checkpoint_kv_cache(config) if isinstance(config, dict) else None


def _rollback_problems(spec: HostSpec, manifest: Manifest, facts: HostFacts) -> list[str]:
    try:
        refuse_rollback(manifest.name, manifest.version, manifest.id, dict(facts.floor), spec.downgrade_reason)
    except BundleRejected as refused:
        return [f"the bundle cannot be installed here: {refused}"]
    return []


def _instance_problems(spec: HostSpec, manifest: Manifest) -> list[str]:
    try:
        instances = parse_instances(spec.instances)
        found = validate_release(instances, release_of(spec.vllm))
    except InputError as wrong:
        return [str(wrong)]
    carried = manifest.model_paths
    return found + [
        f"instance {instance.name!r}: {instance.model.repo} at {instance.model.revision} is not in the bundle, "
        f"which has {', '.join(f'{repo} at {revision}' for repo, revision in sorted(carried)) or 'no model'}; "
        "set model.repo and model.revision, or add the model to bundle.yml and build the bundle again"
        for instance in instances
        if (instance.model.repo, instance.model.revision) not in carried
    ]


def _file_problems(spec: HostSpec, manifest: Manifest, host: Host, bundle: Path) -> list[str]:
    """Validate the models, adapters and chat templates of instances."""
    sources, release = adapter_sources(manifest, bundle, host.facts.adapters), release_of(spec.vllm)
    gpus = host.gpus.gpus if host.gpus and spec.flavour == "cuda" else ()
    found: list[str] = []
    for instance in parse_instances(spec.instances):
        findings = model_findings(instance, sources.snapshots, release, capability_of(instance.gpus, gpus))
        refused = [finding.text for finding in findings if finding.refuses]
        found += refused or validate_adapters(instance, sources, release)
        try:
            find_template(instance, Path(spec.site), sources.snapshots, "")
        except InputError as wrong:
            found.append(str(wrong))
    return found


def _runtime_problems(spec: HostSpec, manifest: Manifest) -> list[str]:
    try:
        find_runtime(manifest, spec.vllm, spec.flavour, spec.python)
    except InputError as wrong:
        return [str(wrong)]
    return []


def _capacity_problems(spec: HostSpec, manifest: Manifest, bundle: Path, gpus: GpuFacts | None) -> list[str]:
    """Name the instances that cannot hold one request of their max_model_len; none where a GPU's memory is unknown."""
    paths = manifest.model_paths
    found = []
    for instance in parse_instances(spec.instances):
        request = capacity_request(
            instance,
            bundle / paths[instance.model.repo, instance.model.revision],
            vllm=spec.vllm,
            flavour=spec.flavour,
            cpu_kvcache_gib=spec.cpu_kvcache_gib,
            gpus=gpus,
        )
        problem = capacity.validate_capacity(request) if request else None
        found += [problem] if problem else []
    return found


def capacity_request(
    instance: Instance, model: Path, *, vllm: str, flavour: str, cpu_kvcache_gib: int, gpus: GpuFacts | None
) -> capacity.CapacityRequest | None:
    """Return the capacity request of an instance on a host; None where its GPU's memory is unknown.

    Args:
        instance: as the inventory has it.
        model: its model's folder in the bundle.
        vllm: the host's release.
        flavour: `cpu` or `cuda`.
        cpu_kvcache_gib: memory of the KV cache on a CPU, in GiB.
        gpus: the facts of the host's GPUs.
    """
    cpu = flavour == "cpu"
    gpu_bytes = None if cpu or gpus is None else cuda_bytes_of(instance.gpus, gpus.gpus)
    if not cpu and gpu_bytes is None:
        return None
    return capacity.CapacityRequest(
        name=instance.name,
        model=model,
        release=vllm,
        max_model_len=instance.max_model_len,
        max_num_seqs=instance.max_num_seqs,
        extra_args=instance.flags,
        gpu_bytes=gpu_bytes,
        cpu_kv_bytes=cpu_kvcache_gib << 30 if cpu else None,
        tensor_parallel=instance.tensor_parallel,
        dtype=instance.dtype,
        quantization=instance.quantization,
        kv_cache_dtype=instance.kv_cache_dtype,
        gpu_memory_utilization=None if cpu else instance.gpu_memory_utilization,
        fp8_kv_cache=cpu or gpus is None or stores_fp8(capability_of(instance.gpus, gpus.gpus), release_of(vllm)),
    )


def _room_rows(spec: HostSpec, manifest: Manifest, host: Host) -> list[Row]:
    """Return the rows about disk, counting only what is not there yet, and on a CPU about memory."""
    facts = host.facts
    parts = parts_for(manifest, facts.release, spec.instances, vllm=spec.vllm, flavour=spec.flavour, python=spec.python)
    carried = sum(entry.size for entry in manifest.under(parts))
    need = {spec.store: max(0, carried - facts.stored_bytes)}
    for runtime in manifest.runtimes if spec.serves else ():
        chosen = (runtime.vllm, runtime.flavour, runtime.python) == (spec.vllm, spec.flavour, spec.python)
        if chosen and runtime.id not in facts.releases:
            wheels = sum(entry.size for entry in manifest.under((runtime.wheels,)))
            need[spec.releases] = _RELEASE_FACTOR * wheels
    rows = _host_rows.disk_rows(need, facts.free_bytes)
    if spec.serves and spec.flavour == "cpu" and host.gpus is not None:
        instances = parse_instances(spec.instances)
        memory = _host_rows.memory_row(instances, manifest, spec.cpu_kvcache_gib, host.gpus.host.memory)
        rows += [memory] if memory else []
    return rows
