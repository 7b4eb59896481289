"""`rackserve bundle build`: gather everything a site's hosts need, on a machine that reaches the registries."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rackserve._paths import cache_dir, program_file
from rackserve.bundle._audit import AUDIT, audit, judge, skipped
from rackserve.bundle._controller import CONTROLLER_PACKAGES, build_controller
from rackserve.bundle._gather import BuildContext
from rackserve.bundle._manifest import Manifest, parse_manifest, scan
from rackserve.bundle._recipe import read_recipe
from rackserve.bundle._sbom import SBOM, sbom_of_tree
from rackserve.bundle._sign import attest, require_key, sign
from rackserve.errors import BundleError, InputError
from rackserve.programs.verify_bundle import MANIFEST, MAX_VERSION, VERIFIER, BundleRejected, Entry

if TYPE_CHECKING:
    from rackserve.bundle._audit import Audit
    from rackserve.bundle._progress import Progress
    from rackserve.bundle._recipe import Recipe

AUDIT_DAYS: Final = 30


def build(
    inventory: Path,
    output: Path,
    progress: Progress,
    *,
    key: Path,
    version: int | None = None,
    allow_dirty: bool = False,
    no_audit: str | None = None,
) -> Manifest:
    """Build the bundle that an inventory's `bundle.yml` describes, and sign it.

    Nothing is left at `output` unless the whole bundle is complete. Equal inputs give an equal manifest, independent of
    date, machine and user.

    Args:
        inventory: the site's folder.
        output: the bundle's folder; it must not exist.
        progress: called before each step, and while files arrive.
        key: the signing key.
        version: replaces the recipe's.
        no_audit: the reason for skipping the vulnerability audit; it is recorded.
        allow_dirty: include this project as of its last commit, although the working tree has changes.

    Raises:
        InputError: when the recipe is wrong or the output exists.
        BundleError: when a part cannot be downloaded or built.
    """
    recipe = read_recipe(inventory)
    if output.exists():
        raise InputError(f"{output} exists; name a new folder, or remove that one")
    if version is not None and not 1 <= version <= MAX_VERSION:
        raise InputError(f"--bundle-version is {version}; give a whole number from 1 to {MAX_VERSION}")
    require_key(key)
    verdict = _audited(recipe, progress, no_audit)
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="build-", dir=cache_dir()) as scratch,
        tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as draft,
    ):
        tree, archive = Path(draft, "tree"), Path(draft, "archive")
        tree.mkdir()
        context = BuildContext(tree, Path(scratch), progress)
        versions = list(dict.fromkeys(runtime.vllm for runtime in recipe.runtimes))
        # Models first: one that no release can serve is found before the wheels are downloaded.
        models = tuple(context.model(part, versions) for part in recipe.models)
        runtimes = tuple(context.runtime(part, recipe.oldest_debian(part)) for part in recipe.runtimes)
        if recipe.has_gpus:
            context.gpu_exporter(recipe.oldest_debian())
        more = CONTROLLER_PACKAGES if recipe.controller else ()
        repositories = tuple(context.repository(target, more) for target in recipe.targets)
        drivers = tuple(context.driver(target, target.driver) for target in recipe.targets if target.driver)
        controller = (
            build_controller(tree, context.scratch, progress, allow_dirty=allow_dirty) if recipe.controller else None
        )
        shutil.copyfile(program_file(VERIFIER), tree / VERIFIER)
        progress.say("hash every file")
        files = scan(tree)
        bill = sbom_of_tree(
            tree,
            files,
            runtimes=runtimes,
            models=models,
            repositories=(*repositories, *drivers),
            controller=controller,
        ).encode()
        (tree / SBOM).write_bytes(bill)
        listed = Entry(SBOM, len(bill), hashlib.sha256(bill).hexdigest())
        manifest = Manifest(
            name=recipe.name,
            version=version or recipe.version,
            expires=recipe.expires.isoformat() if recipe.expires else None,
            runtimes=runtimes,
            models=models,
            repositories=repositories,
            drivers=drivers,
            controller=controller,
            files=tuple(sorted((*files, listed))),
        )
        archive.mkdir()
        pack(tree, manifest, archive)
        sign(archive, key)
        attest(archive, AUDIT, verdict.content(), key)
        archive.rename(output)
    return manifest


def _audited(recipe: Recipe, progress: Progress, no_audit: str | None) -> Audit:
    """Return the audit of what the bundle will contain; one that did not pass stops the build before it downloads."""
    if no_audit is not None:
        return skipped(no_audit)
    progress.say("ask for known vulnerabilities of every locked package")
    known = [lock for lock in recipe.locks if lock.exists()]
    verdict = judge(audit(known), recipe.waivers, dt.datetime.now(dt.UTC).date(), AUDIT_DAYS)
    if verdict.ok is False:
        raise BundleError(f"{verdict.reason}; take another release, or waive it until a date: `waivers` in bundle.yml")
    if verdict.ok is None:
        raise BundleError(f"{verdict.reason}; build where the service is reached, or record why not: --no-audit REASON")
    return verdict


def pack(tree: Path, manifest: Manifest, archive: Path) -> None:
    """Write the transport layout: each content once, under its hash.

    Raises:
        BundleError: when the manifest is one that no rackserve imports, as when a file has a name of the bundle's own.
    """
    try:
        parse_manifest(manifest.to_bytes())
    except BundleRejected as refused:
        raise BundleError(f"no rackserve would import this bundle: {refused}") from refused
    by_path = {entry.path: entry for entry in manifest.files}
    for entry in manifest.files:
        blob = archive / entry.blob
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            (tree / entry.path).rename(blob)
    shutil.copyfile(archive / by_path[VERIFIER].blob, archive / VERIFIER)
    (archive / MANIFEST).write_bytes(manifest.to_bytes())
    for path in [archive, *archive.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)  # media keep modes, and not only root reads them
