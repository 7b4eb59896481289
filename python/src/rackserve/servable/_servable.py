"""The one question: can this release serve what is in this folder, as this instance asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.servable._architecture import architecture_findings
from rackserve.servable._facts import facts_of
from rackserve.servable._quantization import quantization_findings
from rackserve.servable._snapshot import BadFileError, Finding, Snapshot, shorten
from rackserve.servable._tokenizer import template_findings, tokenizer_findings
from rackserve.servable._weights import adapter_findings, weight_findings

if TYPE_CHECKING:
    from pathlib import Path

    from rackserve.servable._snapshot import Use


def servable(folder: Path, version: str, use: Use | None = None) -> list[Finding]:
    """Return what keeps a release from serving a folder, refusals first; what is not understood is left to vLLM.

    Args:
        folder: a model or adapter as the bundle has it.
        version: the vLLM release.
        use: what an instance does with it; None at the build of a bundle, where an instance may still bring a
            tokenizer, trust the repository's code or take another load format.

    Raises:
        InputError: when the release is not known.
    """
    snapshot, facts = Snapshot(folder), facts_of(version)
    if pointers := snapshot.pointers():
        return [Finding(f"{shorten(pointers)}: a Git LFS pointer instead of the content; fetch it again")]
    try:
        if snapshot.is_adapter:
            return adapter_findings(snapshot)
        config = {**snapshot.json("config.json"), **(use.overrides if use else {})}
        if use is not None and use.role == "tokenizer":
            return tokenizer_findings(snapshot, config, use)
        found = [
            *_config_findings(snapshot, use),
            *weight_findings(snapshot, version, use),
            *tokenizer_findings(snapshot, config, use),
            *architecture_findings(snapshot, config, version, facts, use),
            *quantization_findings(snapshot, config, version, facts, use),
            *template_findings(snapshot, config, use),
        ]
    except BadFileError as wrong:
        return [Finding(str(wrong))]
    return sorted(found, key=lambda finding: not finding.refuses)


def _config_findings(snapshot: Snapshot, use: Use | None) -> list[Finding]:
    if snapshot.has("config.json", "params.json") or (use and use.argument("hf-config-path")):
        return []
    text = "it has no config.json; add it to the model's files in bundle.yml and build the bundle again"
    return [Finding(text, refuses=use is not None)]
