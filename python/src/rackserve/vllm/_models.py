"""Whether the release can serve the models of instances, as they lie in the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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
    """Return what keeps a release from serving an instance: its model, adapters, draft and tokenizer; and notes.

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
        if found and (reference.is_draft or reference.argument == "tokenizer"):
            trust = {"trust-remote-code": use.argument("trust-remote-code")}
            role: Literal["draft", "tokenizer"] = "draft" if reference.is_draft else "tokenizer"
            wanted.setdefault(found, Use(role=role, extra_args=trust))
    return [
        *map(Finding, reference_problems(instance, snapshots)),
        *(
            Finding(f"instance {instance.name!r}: {repo}: {finding.text}", finding.refuses)
            for (repo, revision), what in wanted.items()
            if (folder := snapshots.get((repo, revision))) and folder.is_dir()
            for finding in servable(folder, release.version, what)
        ),
    ]
