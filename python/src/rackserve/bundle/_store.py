"""The controller's own bundles: imported ones side by side, and a link to the one in use."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rackserve._paths import state_dir
from rackserve.bundle._build import link_or_copy
from rackserve.bundle._manifest import MANIFEST, Manifest, problems, read_manifest
from rackserve.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackserve.bundle._manifest import FileEntry

_SHOWN: Final = 10


def verify(bundle: Path, on_file: Callable[[FileEntry], None] = lambda _: None) -> Manifest:
    """Read every byte of a bundle and compare it with its manifest.

    Raises:
        BundleError: naming what is missing, altered or not in the manifest.
    """
    manifest = read_manifest(bundle)
    if found := problems(bundle, manifest, on_file):
        more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        listed = "\n  ".join(found[:_SHOWN])
        raise BundleError(f"{bundle} is not what its manifest says; copy it again:\n  {listed}{more}")
    return manifest


def import_bundle(bundle: Path, on_file: Callable[[FileEntry], None] = lambda _: None) -> Path:
    """Verify a bundle, place it beside the others and make it the one in use.

    An import that is interrupted leaves the bundle in use as it was.

    Returns:
        The folder of the imported bundle.

    Raises:
        BundleError: when it does not verify, or the disk is full.
    """
    manifest = verify(bundle, on_file)
    store = state_dir() / "bundles"
    store.mkdir(mode=0o700, exist_ok=True)
    home = store / manifest.id
    if not home.exists():
        draft = Path(tempfile.mkdtemp(prefix=".import-", dir=store))
        try:
            for entry in manifest.files:
                (draft / entry.path).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(bundle / entry.path, draft / entry.path)
            link_or_copy(bundle / MANIFEST, draft / MANIFEST)
            draft.rename(home)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    link = store / ".current"
    link.unlink(missing_ok=True)
    link.symlink_to(manifest.id)
    os.replace(link, store / "current")  # noqa: PTH105 - the atomic rename is the point
    return home
