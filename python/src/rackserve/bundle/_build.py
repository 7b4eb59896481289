"""`rackserve bundle build`: gather everything a site's hosts need, on a machine that reaches the registries."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rackserve._apt import machine_sources, mirror_lines
from rackserve._paths import cache_dir, project_root
from rackserve.bundle import verify_bundle
from rackserve.bundle._debs import build_repository
from rackserve.bundle._manifest import Manifest, Model, Repository, Runtime, scan, sha256_of
from rackserve.bundle._models import build_model
from rackserve.bundle._recipe import debian_packages, read_recipe
from rackserve.bundle._sign import require_key, sign
from rackserve.bundle._wheels import build_wheelhouse
from rackserve.bundle.verify_bundle import MANIFEST, VERIFIER
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackserve.bundle._recipe import ModelRecipe, RuntimeRecipe

RELEASE_ID_DIGITS: Final = 12


def build(
    inventory: Path, output: Path, say: Callable[[str], None], *, key: Path, version: int | None = None
) -> Manifest:
    """Build the bundle that an inventory's `bundle.yml` describes, and sign it.

    Nothing is left at `output` unless the whole bundle is complete. Equal inputs give an equal manifest, whenever,
    wherever and by whomever it is built.

    Args:
        inventory: the site's folder.
        output: the bundle's folder; it must not exist.
        say: told of each step before it begins.
        key: what to sign with.
        version: instead of the recipe's.

    Raises:
        InputError: when the recipe is wrong or the output exists.
        BundleError: when a part cannot be had.
    """
    recipe = read_recipe(inventory)
    if output.exists():
        raise InputError(f"{output} exists; name a new folder, or remove that one")
    require_key(key)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    scratch = Path(tempfile.mkdtemp(prefix="build-", dir=cache_dir()))
    try:
        draft.chmod(0o755)
        runtimes = tuple(_add_runtime(part, draft, scratch, say) for part in recipe.runtimes)
        models = tuple(_add_model(part, draft, scratch, say) for part in recipe.models)
        repositories = tuple(_add_repository(target.release, draft, scratch, say) for target in recipe.targets)
        shutil.copyfile(verify_bundle.__file__, draft / VERIFIER)
        say("hash every file")
        manifest = Manifest(
            name=recipe.name,
            version=version or recipe.version,
            expires=recipe.expires.isoformat() if recipe.expires else None,
            runtimes=runtimes,
            models=models,
            repositories=repositories,
            files=scan(draft),
        )
        parcel = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
        try:
            pack(draft, manifest, parcel)
            sign(parcel, key)
            parcel.rename(output)
        finally:
            shutil.rmtree(parcel, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def pack(tree: Path, manifest: Manifest, parcel: Path) -> None:
    """Write what travels: each content once, under its hash."""
    parcel.chmod(0o755)
    by_path = {entry.path: entry for entry in manifest.files}
    for entry in manifest.files:
        blob = parcel / entry.blob
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            (tree / entry.path).rename(blob)
    shutil.copyfile(parcel / by_path[VERIFIER].blob, parcel / VERIFIER)
    (parcel / MANIFEST).write_bytes(manifest.to_bytes())


def _add_runtime(recipe: RuntimeRecipe, draft: Path, scratch: Path, say: Callable[[str], None]) -> Runtime:
    lock = project_root() / "python" / "locks" / f"{recipe.lock_name}.txt"
    if not lock.exists():
        known = sorted(path.stem for path in lock.parent.glob("vllm-*.txt"))
        raise InputError(f"no lock for vLLM {recipe.vllm} ({recipe.lock_name}); locks there are: {', '.join(known)}")
    say(f"wheels of vLLM {recipe.vllm} ({recipe.flavour}, Python {recipe.python})")
    kept = cache_dir() / "wheels" / recipe.lock_name
    build_wheelhouse(recipe, lock, kept, scratch)
    wheels = f"wheels/{recipe.lock_name}"
    (draft / wheels).mkdir(parents=True)
    for wheel in kept.glob("*.whl"):
        verify_bundle.place(str(wheel), str(draft / wheels / wheel.name))
    (draft / "locks").mkdir(exist_ok=True)
    shutil.copyfile(lock, draft / "locks" / lock.name)
    digest = sha256_of(lock)
    return Runtime(
        id=f"{recipe.vllm}-{digest[:RELEASE_ID_DIGITS]}",
        vllm=recipe.vllm,
        flavour=recipe.flavour,
        python=recipe.python,
        lock=f"locks/{lock.name}",
        lock_sha256=digest,
        wheels=wheels,
    )


def _add_model(recipe: ModelRecipe, draft: Path, scratch: Path, say: Callable[[str], None]) -> Model:
    say(f"model {recipe.repo}")
    path = f"models/{recipe.repo.replace('/', '--')}/{recipe.revision}"
    build_model(recipe, draft / path, scratch)
    size = sum(file.stat().st_size for file in (draft / path).rglob("*") if file.is_file())
    return Model(repo=recipe.repo, revision=recipe.revision, path=path, size=size)


def _add_repository(release: str, draft: Path, scratch: Path, say: Callable[[str], None]) -> Repository:
    packages = debian_packages()
    say(f"Debian {release} packages: {', '.join(packages)}")
    path = f"apt/debian-{release}"
    sources = mirror_lines(machine_sources(), int(release))
    if not sources:
        raise InputError("/etc/apt names no archive of Debian; configure one on this machine, then run this again")
    versions = build_repository(sources, packages, draft / path, scratch / f"debian-{release}")
    return Repository(release=release, path=path, packages=versions)
