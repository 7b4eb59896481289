"""The controller's bundle, and its signer. Its bytes were compared when it was imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve import bundle
from rackserve.errors import RackserveError
from rackserve.report._types import BundleFacts

if TYPE_CHECKING:
    from pathlib import Path


def describe_bundle(path: Path, trust_file: Path) -> BundleFacts:
    """Describe a bundle; problems are part of the description, never raised."""
    try:
        signed = bundle.read_signed(path, bundle.read_trust(trust_file))
    except RackserveError as wrong:
        return BundleFacts(problem=str(wrong))
    manifest, audit = signed.manifest, signed.attested.get("audit", {})
    return BundleFacts(
        name=manifest.name,
        version=manifest.version,
        expires=manifest.expires or "",
        digest=bundle.sha256_of(path / "manifest.json"),
        files=len(manifest.files),
        size=manifest.size,
        signer=signed.signer,
        fingerprint=bundle.fingerprint_of(path / "manifest.json.sig"),
        audit=f"{audit.get('reason', 'none')} ({audit.get('made_at', 'never')})",
        runtimes=tuple(runtime.id for runtime in manifest.runtimes),
        models=tuple(f"{model.repo} at {model.revision}" for model in manifest.models),
    )
