"""The parts of a bundle, gathered from the registries that this machine reaches."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rackserve._apt import machine_sources, mirror_lines
from rackserve._paths import cache_dir, project_root
from rackserve.bundle._debs import build_repository, index_repository
from rackserve.bundle._driver_choice import COMPONENTS
from rackserve.bundle._drivers import build_driver_set
from rackserve.bundle._locks import for_target, read_lock
from rackserve.bundle._manifest import Driver, Model, Repository, Runtime, sha256_of
from rackserve.bundle._models import build_model, check_model
from rackserve.bundle._recipe import GPU_EXPORTER, debian_packages
from rackserve.bundle._supplied import add_supplied, unmet_dependencies
from rackserve.bundle._wheels import TARGET_MACHINE, build_wheelhouse, download
from rackserve.errors import BundleError, InputError
from rackserve.programs.verify_bundle import place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rackserve.bundle._progress import Progress
    from rackserve.bundle._recipe import DriverRecipe, ModelRecipe, RuntimeRecipe, TargetRecipe

RELEASE_ID_DIGITS: Final = 12


@dataclass(frozen=True)
class BuildContext:
    """The state of one build: the bundle's tree so far, a scratch folder, and the progress callbacks."""

    tree: Path
    scratch: Path
    progress: Progress

    def runtime(self, recipe: RuntimeRecipe, debian: str) -> Runtime:
        """Add a vLLM release: its lock, and every wheel of it.

        Args:
            recipe: the runtime.
            debian: the oldest Debian release of the hosts that it is for.

        Raises:
            InputError: when the project has no such lock.
            BundleError: when a wheel cannot be had.
        """
        lock = project_root() / "python" / "locks" / f"{recipe.lock_name}.txt"
        if not lock.exists():
            known = sorted(path.stem for path in lock.parent.glob("vllm-*.txt"))
            raise InputError(f"no lock for vLLM {recipe.vllm} ({recipe.lock_name}); locks are: {', '.join(known)}")
        self.progress.say(f"wheels of vLLM {recipe.vllm} ({recipe.flavour}, Python {recipe.python})")
        kept = cache_dir() / "wheels" / recipe.lock_name
        build_wheelhouse(recipe, lock, kept, self.scratch, self.progress, release=debian)
        wheels = f"wheels/{recipe.lock_name}"
        (self.tree / wheels).mkdir(parents=True)
        pinned = for_target(lock.read_text(encoding="utf-8"), recipe.python)
        placed = set()
        for wheel in kept.glob("*.whl"):
            if (digest := sha256_of(wheel)) in pinned:  # the cache may have wheels of an older lock too
                place(str(wheel), str(self.tree / wheels / wheel.name))
                placed.add(digest)
        if lacking := [pin.name for pin in read_lock(pinned) if not pin.hashes & placed]:
            raise BundleError(f"{lock.name} pins {', '.join(lacking)}, and no wheel of that came; build again")
        (self.tree / "locks").mkdir(exist_ok=True)
        (self.tree / "locks" / lock.name).write_text(pinned, encoding="utf-8")
        digest = sha256_of(self.tree / "locks" / lock.name)
        return Runtime(
            id=f"{recipe.vllm}-{digest[:RELEASE_ID_DIGITS]}",
            vllm=recipe.vllm,
            flavour=recipe.flavour,
            python=recipe.python,
            lock=f"locks/{lock.name}",
            lock_sha256=digest,
            wheels=wheels,
        )

    def gpu_exporter(self, debian: str) -> None:
        """Add the wheels of the exporter of GPUs, which are for every Python that a host may have.

        Args:
            debian: the oldest Debian release of the hosts.

        Raises:
            BundleError: when a wheel cannot be had.
        """
        lock = project_root() / "python" / "locks" / GPU_EXPORTER
        self.progress.say("wheels of the exporter of GPUs")
        wheels = self.tree / "wheels" / lock.stem
        download(lock, wheels, "3.11", self.scratch, self.progress, machine=TARGET_MACHINE, release=debian)
        (self.tree / "locks").mkdir(exist_ok=True)
        shutil.copyfile(lock, self.tree / "locks" / lock.name)

    def model(self, recipe: ModelRecipe, versions: Sequence[str]) -> Model:
        """Add the snapshot of a model or of a LoRA adapter.

        Args:
            recipe: of the model.
            versions: the bundle's vLLM releases.

        Raises:
            InputError: when the recipe's revision is not the one that its source gives, or no release can serve it.
            BundleError: when the source cannot be had.
        """
        self.progress.say(f"model {recipe.repo}")
        folder = build_model(recipe, self.tree, self.scratch, self.progress)
        check_model(recipe.repo, folder, versions, self.progress)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        path = folder.relative_to(self.tree).as_posix()
        return Model(repo=recipe.repo, revision=recipe.revision, path=path, size=size)

    def repository(self, target: TargetRecipe, more: tuple[str, ...] = ()) -> Repository:
        """Add the packages that the roles install on a target, and those that the operator supplies.

        Args:
            target: the kind of host.
            more: names of further packages.

        Raises:
            InputError: when a supplied package is not the one pinned, or needs what is not there.
            BundleError: when a package cannot be had.
        """
        packages = tuple(sorted({*debian_packages(), *more}))
        self.progress.say(f"Debian {target.release} packages: {', '.join(packages)}")
        path = f"apt/debian-{target.release}"
        folder, scratch = self.tree / path, self.scratch / f"debian-{target.release}"
        versions = build_repository(self._sources(target.release), packages, folder, scratch, self.progress)
        if target.supplied:
            names = [add_supplied(supplied.deb, supplied.sha256, folder) for supplied in target.supplied]
            versions = index_repository(folder)
            unmet = unmet_dependencies(folder, self.scratch / f"supplied-{target.release}")
            if lacking := [f"{name} needs {', '.join(unmet[name])}" for name in names if name in unmet]:
                raise InputError(f"{'; '.join(lacking)}, which the bundle does not have; supply that too")
        return Repository(release=target.release, path=path, packages=versions)

    def driver(self, target: TargetRecipe, recipe: DriverRecipe) -> Driver:
        """Add the NVIDIA driver set of a target.

        Raises:
            InputError: when a kernel has no headers in the sources, or no driver is complete there.
            BundleError: when a package cannot be had.
        """
        self.progress.say(
            f"NVIDIA driver for Debian {target.release} ({recipe.flavour}), kernels {', '.join(recipe.kernels)}"
        )
        path = f"apt/driver-{target.release}-{recipe.flavour}"
        built = build_driver_set(
            self._sources(target.release, COMPONENTS),
            recipe.kernels,
            recipe.flavour,
            release=target.release,
            into=self.tree / path,
            scratch=self.scratch / path.replace("/", "-"),
            progress=self.progress,
            version=recipe.version,
        )
        for missing in built.missing:
            self.progress.say(f"  without {missing}")
        return Driver(
            release=target.release,
            flavour=built.flavour,
            version=built.version,
            path=path,
            kernels=built.kernels,
            install=built.install,
            packages=built.packages,
            missing=built.missing,
        )

    def _sources(self, release: str, components: tuple[str, ...] = ("main",)) -> list[str]:
        sources = mirror_lines(machine_sources(), int(release), components)
        if not sources:
            raise InputError("/etc/apt names no archive of Debian; configure one on this machine, then run this again")
        return sources
