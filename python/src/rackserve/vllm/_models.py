"""Whether the release can serve the models of instances, as they lie in the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.servable import Finding, Use, servable
from rackserve.vllm._references import find_snapshot, reference_problems, references_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rackserve.vllm._instances import Instance
    from rackserve.vllm._releases import Release


def model_findings(
    instance: Instance,
    snapshots: Mapping[tuple[str, str], Path],
    release: Release,
    capability: tuple[int, int] | None = None,
) -> list[Finding]:
    """Return what keeps a release from serving an instance's model, adapters and draft, and what is worth telling.

    Args:
        instance: as the inventory has it.
        snapshots: folder on the controller of every repository and commit that the bundle has.
        release: which vLLM.
        capability: the oldest compute capability of its GPUs; None on a CPU, or when it is not known.
    """
    use = Use(
        task=instance.task,
        quantization=instance.quantization,
        chat_template=instance.chat_template is not None,
        extra_args=instance.extra_args,
        capability=capability,
    )
    wanted = dict.fromkeys(instance.snapshots, use)
    for reference in references_of(instance):
        found = find_snapshot(reference, instance, snapshots)
        if found and reference.is_draft:
            wanted.setdefault(found, Use(role="draft"))
    return [
        *map(Finding, reference_problems(instance, snapshots)),
        *(
            Finding(f"instance {instance.name!r}: {repo}: {finding.text}", finding.refuses)
            for (repo, revision), what in wanted.items()
            if (folder := snapshots.get((repo, revision))) and folder.is_dir()
            for finding in servable(folder, release.version, what)
        ),
    ]
