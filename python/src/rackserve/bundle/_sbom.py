"""The bill of materials of a bundle: CycloneDX 1.6, and equal bundles have equal bills."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from rackserve.bundle._locks import read_lock
from rackserve.bundle._recipe import GPU_EXPORTER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rackserve.bundle._manifest import Controller, Driver, Model, Repository, Runtime
    from rackserve.programs.verify_bundle import Entry

SBOM: Final = "sbom.cdx.json"
_NAMESPACE: Final = uuid.UUID("6f1c0b0e-3c0e-5f0a-9a55-7a1f6c0b7d10")
_FIELD: Final = re.compile(r"^(?P<key>Package|Version|Architecture|SHA256): (?P<value>.+)$", re.MULTILINE)


def sbom_of_tree(
    tree: Path,
    files: Sequence[Entry],
    *,
    runtimes: Iterable[Runtime],
    models: Iterable[Model],
    repositories: Iterable[Repository | Driver],
    controller: Controller | None,
) -> str:
    """Return the bill of materials of a bundle's tree, as JSON text.

    Args:
        tree: the bundle's files by their names.
        files: all of them.
        runtimes: whose locks are read.
        models: whose files are named.
        repositories: whose `Packages` are read; a driver set is one too.
        controller: whose locks are read, the installer's own among them.
    """
    locks = [tree / runtime.lock for runtime in runtimes]
    if (exporter := tree / "locks" / GPU_EXPORTER).is_file():
        locks.append(exporter)
    if controller:
        locks += sorted((tree / controller.path / "locks").glob("*.txt"))
    found = [item for lock in locks for item in python_components(lock.read_text(encoding="utf-8"))]
    for repository in repositories:
        listed = (tree / repository.path / "Packages").read_text(encoding="utf-8")
        found += debian_components(listed, repository.release)
    for model in models:
        own = [file for file in files if file.path.startswith(f"{model.path}/")]
        found.append(model_component(model, [file._replace(path=file.path[len(model.path) + 1 :]) for file in own]))
    return sbom(found)


def sbom(found: Iterable[Component]) -> str:
    """Return the bill of some components as JSON text: equal components, in any order, give equal text.

    What is found twice, as a package that two locks pin, is named once, with the hashes of both.
    """
    components: dict[str, Component] = {}
    for component in found:
        known = components.setdefault(str(component.bom_ref), component)
        known.hashes.update(component.hashes)
    bom = Bom(components=components.values(), serial_number=_NAMESPACE)
    bom.metadata.timestamp = None  # type: ignore[assignment]  # CycloneDX 1.6 has it optional, the library's types do not
    bom.serial_number = uuid.uuid5(_NAMESPACE, JsonV1Dot6(bom).output_as_string())
    text: str = JsonV1Dot6(bom).output_as_string(indent=1)
    return f"{text}\n"


def python_components(lock: str) -> list[Component]:
    """Return a component for every pin of a lock, with the hashes of its wheels."""
    found = []
    for pin in read_lock(lock):
        url = PackageURL("pypi", None, pin.name, pin.version)
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in sorted(pin.hashes)]
        found.append(_component(ComponentType.LIBRARY, pin.name, pin.version, url, hashes))
    return found


def debian_components(packages: str, release: str) -> list[Component]:
    """Return a component for every package of a repository's `Packages`."""
    found = []
    for stanza in packages.split("\n\n"):
        fields = {match["key"]: match["value"] for match in _FIELD.finditer(stanza)}
        if "Package" in fields:
            qualifiers = {"arch": fields["Architecture"], "distro": f"debian-{release}"}
            url = PackageURL("deb", "debian", fields["Package"], fields["Version"], qualifiers)
            hashes = [HashType(alg=HashAlgorithm.SHA_256, content=fields["SHA256"])]
            found.append(_component(ComponentType.LIBRARY, fields["Package"], fields["Version"], url, hashes))
    return found


def model_component(model: Model, files: Iterable[Entry]) -> Component:
    """Return the component of a model, with one for each of its files."""
    owner, name = model.repo.split("/", 1)
    url = PackageURL("huggingface", owner, name, model.revision)
    component = _component(ComponentType.MACHINE_LEARNING_MODEL, model.repo, model.revision, url, [])
    component.properties.add(Property(name="rackserve:bytes", value=str(model.size)))
    for file in files:
        reference = PackageURL("huggingface", owner, name, model.revision, subpath=file.path).to_string()
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)]
        component.components.add(Component(type=ComponentType.FILE, name=file.path, bom_ref=reference, hashes=hashes))
    return component


def _component(kind: ComponentType, name: str, version: str, url: PackageURL, hashes: list[HashType]) -> Component:
    return Component(type=kind, name=name, version=version, purl=url, bom_ref=url.to_string(), hashes=hashes)
