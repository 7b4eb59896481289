"""The parts of the bundle that a host needs: runtime, snapshots, and the paths that are copied to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.errors import InputError
from rackserve.preflight._driver import find_set
from rackserve.vllm import parse_instances, snapshots_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.bundle import Manifest, Runtime
    from rackserve.preflight._driver import DriverRequest

EXPORTER_PARTS: Final = ("locks/gpu-exporter.txt", "wheels/gpu-exporter")


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
    request: DriverRequest | None = None,
) -> tuple[str, ...]:
    """Return the paths of the bundle that a host needs; one that serves no model needs only its packages.

    `request` is the requested driver, None for a host without one.

    Raises:
        InputError: when the instances are wrong, or the bundle lacks the runtime.
    """
    parts = [repository.path for repository in manifest.repositories if repository.release == release]
    chosen = find_set(request, manifest, release) if request else None
    if chosen:
        parts.append(chosen.path)
    if flavour == "cuda" and (instances or chosen):
        parts += [path for path in EXPORTER_PARTS if manifest.under((path,))]
    if instances:
        runtime = find_runtime(manifest, vllm, flavour, python)
        wanted = wanted_snapshots(instances, manifest)
        parts += [runtime.lock, runtime.wheels]
        parts += sorted(model.path for model in manifest.models if (model.repo, model.revision) in wanted)
    return tuple(parts)


def wanted_snapshots(instances: Sequence[dict[str, Any]], manifest: Manifest) -> frozenset[tuple[str, str]]:
    """Return repository and commit of every model, adapter and further repository that instances need.

    Raises:
        InputError: when the instances are wrong.
    """
    return frozenset().union(*(snapshots_of(instance, manifest.model_paths) for instance in parse_instances(instances)))


def find_snapshots(manifest: Manifest, instances: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the snapshots that instances need.

    Returns:
        `repo`, `revision`, `path` in the bundle, `files` relative to it, and `wanted`: all revisions of the repository
        that instances need.

    Raises:
        InputError: when the instances are wrong.
    """
    wanted = wanted_snapshots(instances, manifest)
    return [
        {
            "repo": model.repo,
            "revision": model.revision,
            "path": model.path,
            "wanted": sorted(revision for repo, revision in wanted if repo == model.repo),
            "files": [
                {**entry._asdict(), "path": entry.path.removeprefix(f"{model.path}/")}
                for entry in manifest.under((model.path,))
            ],
        }
        for model in manifest.models
        if (model.repo, model.revision) in wanted
    ]
