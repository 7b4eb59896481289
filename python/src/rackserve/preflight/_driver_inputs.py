"""The driver inputs of an inventory, and their validation before anything changes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from rackserve._schema import Strict, label_of, sentences
from rackserve.preflight._driver import find_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.bundle import Manifest
    from rackserve.preflight._driver import DriverRequest


class MigLayout(Strict):
    """The MIG instances of one GPU."""

    gpu: int | str = Field(description="Index or UUID of the GPU.")
    profiles: list[Annotated[str, Field(pattern=r"^\d+g\.\d+gb(\+me|\+gfx)?$")]] = Field(
        min_length=1, description="Profiles of its MIG instances, such as 1g.10gb, in order."
    )


@dataclass(frozen=True)
class DriverInputs:
    """The inputs of the role nvidia_driver besides the driver's version; paths are on the controller."""

    runfile: str = ""
    runfile_sha256: str = ""
    signing_key: str = ""
    signing_certificate: str = ""
    mok_hash_file: str = ""
    extras: Sequence[str] = ()
    mig: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def validate_driver_inputs(
    request: DriverRequest, inputs: DriverInputs, manifest: Manifest, release: str, kept: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return a sentence for each problem, with what to set; empty when valid.

    Args:
        request: which driver the inventory asks for.
        inputs: the other driver inputs of the inventory.
        manifest: the bundle's.
        release: the host's Debian.
        kept: driver sets that the host keeps.
    """
    found = _signing(inputs) + _extras(inputs, manifest, release) + _mig(inputs)
    if request.source == "bundle" and find_set(request, manifest, release, kept) is None:
        asked = " ".join(word for word in ("driver", request.version, request.modules) if word)
        has = ", ".join(f"{d.version} {d.flavour}" for d in manifest.drivers if d.release == release) or "none"
        old = ", ".join(f"{k['version']} {k['flavour']}" for k in kept) or "none"
        found.append(
            f"no {asked} for Debian {release}: the bundle has {has}, the host keeps {old}; set nvidia_driver_version "
            "and nvidia_driver_modules to one of these, or name the driver in bundle.yml and build the bundle again, "
            "or set nvidia_driver_source: preinstalled"
        )
    return found + (_runfile(request, inputs) if request.source == "runfile" else [])


def _runfile(request: DriverRequest, inputs: DriverInputs) -> list[str]:
    lacking = [
        f"nvidia_driver_{name}"
        for name, value in (
            ("version", request.version),
            ("modules", request.modules),
            ("runfile", inputs.runfile),
            ("runfile_sha256", inputs.runfile_sha256),
        )
        if not value
    ]
    if lacking:
        return [f"nvidia_driver_source: runfile needs {', '.join(lacking)}"]
    path = Path(inputs.runfile)
    if not path.is_file():
        return [f"nvidia_driver_runfile: {path} does not exist"]
    with path.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    if digest != inputs.runfile_sha256.lower():
        return [f"{path} has the sha256 {digest}, and nvidia_driver_runfile_sha256 is {inputs.runfile_sha256}"]
    return []


def _signing(inputs: DriverInputs) -> list[str]:
    named = {
        "nvidia_driver_signing_key": inputs.signing_key,
        "nvidia_driver_signing_certificate": inputs.signing_certificate,
        "nvidia_driver_mok_hash_file": inputs.mok_hash_file,
    }
    if not any(named.values()):
        return []
    found = [f"{name} is empty, and the others of the signing key are not" for name, path in named.items() if not path]
    return found + [
        f"{name}: {path} does not exist" for name, path in named.items() if path and not Path(path).is_file()
    ]


def _extras(inputs: DriverInputs, manifest: Manifest, release: str) -> list[str]:
    carried = {name for r in manifest.repositories if r.release == release for name in r.packages}
    return [
        f"nvidia_driver_extra_packages: {name} is not among the bundle's packages; "
        "name its .deb in `supplied` of bundle.yml"
        for name in inputs.extras
        if name not in carried
    ]


def _mig(inputs: DriverInputs) -> list[str]:
    found = []
    for position, item in enumerate(inputs.mig):
        try:
            MigLayout.model_validate(item)
        except ValidationError as wrong:
            label = label_of(item, "GPU", position)
            found += [f"nvidia_driver_mig: {label}: {sentence}" for sentence in sentences(wrong, MigLayout)]
    return found
