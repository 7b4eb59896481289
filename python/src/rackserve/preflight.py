"""What is wrong with a host, before anything on it changes: the inventory, the bundle and the host compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rackserve import adapters, capacity, chat_templates, release_fit
from rackserve.bundle.verify_bundle import Refused, refuse_replay
from rackserve.errors import InputError
from rackserve.instances import parse_instances
from rackserve.releases import release_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.bundle import Manifest, Runtime
    from rackserve.instances import Instance
    from rackserve.releases import Release

_SUPPORTED: Final = ("12", "13")
_GB: Final = 1_000_000_000
_RELEASE_FACTOR: Final = 5  # unpacked release with bytecode / wheels: 3.45 GB / 0.86 GB measured, and room to work


@dataclass(frozen=True)
class HostFacts:
    """What the module host_facts read."""

    euid: int
    distribution: str
    release: str
    architecture: str
    pythons: Mapping[str, str]
    free_bytes: Mapping[str, int]
    stored_bytes: int
    releases: Sequence[str]
    floor: Mapping[str, Any]
    adapters: Mapping[str, str | None]


@dataclass(frozen=True)
class Wanted:
    """What the inventory asks of one host; `instances` is empty on a host that serves no model.

    Attributes:
        site: the inventory's folder.
    """

    instances: Sequence[dict[str, Any]]
    vllm: str
    flavour: str
    python: str
    serves: bool
    store: str
    releases: str
    downgrade_reason: str
    cpu_kvcache_gib: int
    site: str


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
    manifest: Manifest, release: str, instances: Sequence[dict[str, Any]], *, vllm: str, flavour: str, python: str
) -> tuple[str, ...]:
    """Return the paths of the bundle that a host needs; one that serves no model needs only its packages.

    Raises:
        InputError: when the instances are wrong, or the bundle lacks the runtime.
    """
    parts = [repository.path for repository in manifest.repositories if repository.release == release]
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


def host_problems(wanted: Wanted, manifest: Manifest, facts: HostFacts, bundle: Path) -> list[str]:
    """Return a sentence for everything that would make the play fail later; an empty list means go.

    Args:
        wanted: what the inventory asks of the host.
        manifest: the bundle's.
        facts: what the host is.
        bundle: the bundle's folder on the controller, whose models' configurations are read.
    """
    problems = _system_problems(manifest, facts) + _replay_problems(wanted, manifest, facts)
    if wanted.serves:
        problems += _instance_problems(wanted, manifest)
        problems += _runtime_problems(wanted, manifest, facts)
    if wanted.serves and not problems:
        problems = _file_problems(wanted, manifest, facts, bundle)
    return problems or _disk_problems(wanted, manifest, facts) + _capacity_problems(wanted, manifest, bundle)


def _system_problems(manifest: Manifest, facts: HostFacts) -> list[str]:
    found = []
    if facts.euid != 0:
        found.append(f"tasks run as user id {facts.euid}, not as root; set ansible_user: root, or ansible_become: true")
    if facts.distribution != "debian" or facts.release not in _SUPPORTED:
        found.append(
            f"the host runs {facts.distribution} {facts.release}; supported are Debian {', '.join(_SUPPORTED)}"
        )
    elif facts.release not in (carried := [repository.release for repository in manifest.repositories]):
        found.append(
            f"the host runs Debian {facts.release}, the bundle carries packages for {', '.join(carried)}; "
            "add the release to bundle.yml and build the bundle again"
        )
    if facts.architecture != "x86_64":
        found.append(f"the host is {facts.architecture}; the bundle's wheels and packages are for x86_64")
    return found


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


def _runtime_problems(wanted: Wanted, manifest: Manifest, facts: HostFacts) -> list[str]:
    found = []
    try:
        find_runtime(manifest, wanted.vllm, wanted.flavour, wanted.python)
    except InputError as wrong:
        found.append(str(wrong))
    if wanted.python not in facts.pythons:
        found.append(
            f"/usr/bin/python{wanted.python} is not on the host, which the locked wheels are for; "
            f"use the Debian release that has it, or set stack_runtime.python to one that the bundle and the host share"
        )
    return found


def _capacity_problems(wanted: Wanted, manifest: Manifest, bundle: Path) -> list[str]:
    """Name the instances that cannot hold one request of their max_model_len."""
    folders = {(model.repo, model.revision): bundle / model.path for model in manifest.models}
    found = (
        capacity.problem_of(
            capacity.Wanted(
                name=instance.name,
                model=folders[instance.model.repo, instance.model.revision],
                release=wanted.vllm,
                max_model_len=instance.max_model_len,
                max_num_seqs=instance.max_num_seqs,
                extra_args=instance.extra_args,
                cpu_kv_bytes=wanted.cpu_kvcache_gib << 30,
                tensor_parallel=instance.tensor_parallel,
                dtype=instance.dtype,
                quantization=instance.quantization,
                kv_cache_dtype=instance.kv_cache_dtype,
            )
        )
        for instance in parse_instances(wanted.instances)
        if wanted.flavour == "cpu"
    )
    return [problem for problem in found if problem]


def _disk_problems(wanted: Wanted, manifest: Manifest, facts: HostFacts) -> list[str]:
    """Compare free space with what is still to come."""
    parts = parts_for(
        manifest, facts.release, wanted.instances, vllm=wanted.vllm, flavour=wanted.flavour, python=wanted.python
    )
    carried = sum(entry.size for entry in manifest.under(parts))
    need = {wanted.store: max(0, carried - facts.stored_bytes)}
    for runtime in manifest.runtimes if wanted.serves else ():
        if runtime.vllm == wanted.vllm and runtime.id not in facts.releases:
            wheels = sum(entry.size for entry in manifest.under((runtime.wheels,)))
            need[wanted.releases] = _RELEASE_FACTOR * wheels
    return [
        f"{path} has {facts.free_bytes[path] / _GB:.1f} GB free and needs {size / _GB:.1f} GB; "
        "free that much, or mount a larger filesystem there"
        for path, size in need.items()
        if facts.free_bytes[path] < size
    ]
