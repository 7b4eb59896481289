"""Instances with the paths that their adapters, chat templates and further repositories have on a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve.vllm._adapters import Sources, with_adapters
from rackserve.vllm._chat_templates import find_template
from rackserve.vllm._references import with_references

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rackserve.bundle import Manifest
    from rackserve.vllm._instances import Instance
    from rackserve.vllm._releases import Release


def adapter_sources(manifest: Manifest, bundle: Path, on_host: Mapping[str, str | None]) -> Sources:
    """Return the sources of adapters: the bundle, and the adapters that were read on a host."""
    return Sources({snapshot: bundle / path for snapshot, path in manifest.model_paths.items()}, on_host)


def resolve_paths(
    instances: Sequence[Instance], sources: Sources, release: Release, hf_home: str, site: Path
) -> list[Instance]:
    """Return instances with adapters, templates and further repositories by their paths on the host.

    Raises:
        InputError: when one of these cannot be read or does not fit.
    """
    found = []
    for instance in instances:
        template = find_template(instance, site, sources.snapshots, hf_home)
        known = instance.model_copy(update={"chat_template": template.on_host}) if template else instance
        named = with_references(known, sources.snapshots, hf_home)
        found.append(with_adapters(named, sources, release, hf_home))
    return found
