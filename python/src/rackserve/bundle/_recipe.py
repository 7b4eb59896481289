"""`bundle.yml` of an inventory: the contents of its bundle."""

from __future__ import annotations

import re
from datetime import date  # noqa: TC003 - pydantic reads it
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal

import yaml
from pydantic import Field, field_validator

from rackserve._paths import project_root
from rackserve._schema import Converting
from rackserve._yaml import read_model
from rackserve.bundle._waivers import Waiver  # noqa: TC001 - pydantic reads it
from rackserve.programs.verify_bundle import MAX_VERSION, is_safe_path

RECIPE = "bundle.yml"
GPU_EXPORTER = "gpu-exporter.txt"  # its lock; its wheels lie in wheels/gpu-exporter


class RuntimeRecipe(Converting):
    """One vLLM release for one kind of host; its lock is `python/locks/<lock_name>.txt`."""

    vllm: str = Field(description="Version of vLLM.")
    flavour: Literal["cpu", "cuda"] = Field(description="Hardware that vLLM was built for.")
    python: str = Field(description="Version of the host's Python, such as `3.11`.")

    @property
    def lock_name(self) -> str:
        """The lock's file name without suffix, such as `vllm-0.32.0-cpu-py311`."""
        return f"vllm-{self.vllm}-{self.flavour}-py{self.python.replace('.', '')}"


class GgufSource(Converting):
    """A GGUF file inside a package of the Python registry, to be converted to safetensors."""

    kind: Literal["pypi_gguf"]
    package: str
    version: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the wheel")
    member: str = Field(description="path of the GGUF file inside the wheel")


class RandomSource(Converting):
    """A random Llama of about one megabyte, for tests: real files and real tokens, meaningless text."""

    kind: Literal["random_llama"]
    seed: int = 0


class RandomLoraSource(Converting):
    """A small random LoRA adapter for a model of this bundle, for tests: it changes the answers at random."""

    kind: Literal["random_lora"]
    base: str = Field(description="repository of the model that it adapts, which `models` lists before it")
    base_revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    rank: int = Field(default=8, ge=1, le=512)
    seed: int = 0


class FolderSource(Converting):
    """A snapshot that was downloaded before, such as by `hf download REPO --revision COMMIT --local-dir DIR`.

    `files` pins each file by its sha256; only these are included.
    """

    kind: Literal["folder"]
    path: Path
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        if outside := [name for name in files if not is_safe_path(name)]:
            raise ValueError(f"{outside[0]!r} is not the path of a file inside the snapshot")
        return files


class ModelRecipe(Converting):
    """One model or LoRA adapter: its repository, the 40-hex commit it is pinned by, and where its files come from."""

    repo: str = Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    source: Annotated[GgufSource | RandomSource | RandomLoraSource | FolderSource, Field(discriminator="kind")]


class DriverRecipe(Converting):
    """The NVIDIA driver of a target: proprietary or open modules, and the kernels of its hosts as in `uname -r`."""

    flavour: Literal["proprietary", "open"]
    kernels: tuple[str, ...] = Field(min_length=1)
    version: str | None = Field(default=None, description="exact, such as 535.309.01; else the newest that is complete")


class SuppliedRecipe(Converting):
    """A .deb that the operator brings, such as Grafana's: its path on the machine that builds, pinned by hash."""

    deb: Path
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TargetRecipe(Converting):
    """One kind of host: its operating system, and the vLLM releases that it may run."""

    distribution: Literal["debian"]
    release: Literal["12", "13"]
    architecture: Literal["amd64"] = "amd64"
    runtimes: tuple[RuntimeRecipe, ...] = ()
    driver: DriverRecipe | None = None
    supplied: tuple[SuppliedRecipe, ...] = ()


class Recipe(Converting):
    """The whole of `bundle.yml`."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    version: int = Field(ge=1, le=MAX_VERSION)
    expires: date | None = None
    targets: tuple[TargetRecipe, ...] = Field(min_length=1)
    models: tuple[ModelRecipe, ...]
    controller: bool = Field(default=False, description="carry the control node's environment and this project too")
    waivers: tuple[Waiver, ...] = Field(default=(), description="known vulnerabilities that are accepted until a date")

    @field_validator("targets")
    @classmethod
    def _one_target_a_release(cls, targets: tuple[TargetRecipe, ...]) -> tuple[TargetRecipe, ...]:
        releases = [target.release for target in targets]
        if twice := sorted({release for release in releases if releases.count(release) > 1}):
            raise ValueError(f"Debian {', '.join(twice)} is listed twice; put its runtimes under one target")
        return targets

    @property
    def locks(self) -> list[Path]:
        """The project's lock files of everything in the bundle."""
        names = [f"{runtime.lock_name}.txt" for runtime in self.runtimes]
        names += ["controller.txt", "uv.txt"] if self.controller else []
        names += [GPU_EXPORTER] if self.has_gpus else []
        return [project_root() / "python" / "locks" / name for name in names]

    @property
    def has_gpus(self) -> bool:
        """Whether any of its hosts has GPUs, and so an exporter of them."""
        return any(target.driver for target in self.targets) or any(r.flavour == "cuda" for r in self.runtimes)

    def oldest_debian(self, runtime: RuntimeRecipe | None = None) -> str:
        """Return the oldest Debian release among the targets: all, or those of one runtime."""
        return min(
            (target.release for target in self.targets if runtime is None or runtime in target.runtimes), key=int
        )

    @property
    def runtimes(self) -> tuple[RuntimeRecipe, ...]:
        """Every runtime once, however many targets it is for."""
        return tuple(dict.fromkeys(runtime for target in self.targets for runtime in target.runtimes))


def read_recipe(inventory: Path) -> Recipe:
    """Read an inventory's `bundle.yml`.

    Raises:
        InputError: when it is missing or has an unknown key.
    """
    return read_model(inventory / RECIPE, Recipe, "it names what the bundle carries")


def debian_packages() -> tuple[str, ...]:
    """Return the Debian packages that the roles install: every `__<role>_packages` of `roles/*/vars/`."""
    names: set[str] = set()
    for path in sorted(project_root().glob("roles/*/vars/**/*.yml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for key, value in values.items():
            if re.fullmatch(rf"__{path.parts[path.parts.index('vars') - 1]}_packages", key):
                names.update(value)
    return tuple(sorted(names))
