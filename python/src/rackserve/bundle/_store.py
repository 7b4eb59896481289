"""The controller's imported bundles: each content once, a tree of hard links per bundle, a link to the current one."""

from __future__ import annotations

import fcntl
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Self

from rackserve.errors import BundleError
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import MANIFEST, SHOWN, BundleRejected, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rackserve.bundle._manifest import Manifest

_SLACK = 1 << 20
_INCOMING = ".incoming-"


def reject(found: list[str]) -> None:
    """Reject a bundle when there are findings.

    Raises:
        BundleRejected: naming the first findings, one a line.
    """
    if found:
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise BundleRejected("\n  ".join(["it differs from its manifest:", *found[:SHOWN], *more]))


class Store:
    """A folder of bundles, held by one process at a time.

    `blobs/ab/<sha256>` has each content once; `<id>/` is a bundle's tree of hard links to them; `current` points to the
    current one. Names that begin with a dot are unfinished.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        self.root.mkdir(mode=0o700, exist_ok=True)
        self._lock = (self.root / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise BundleError(f"another rackserve is importing into {self.root}; wait until it has ended") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def incoming(self, name: str) -> Path:
        """Return the folder where the parts of a bundle are joined; the folder of another bundle's parts is removed."""
        mine = self.root / f"{_INCOMING}{name}"
        self.tidy(keep=mine)
        return mine

    def tidy(self, keep: Path | None = None) -> None:
        """Remove unfinished imports."""
        for path in self.root.glob(".*-*"):
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)

    def add(
        self, bundle: Path, manifest: Manifest, signed: Mapping[str, bytes], on_file: Callable[[Entry], None]
    ) -> Path:
        """Add a bundle or a difference, and make it the current one.

        Its folder may be on a medium that others can write: each content gets its name in the store only once the bytes
        in the store were verified, and no file of the store shares an inode with one of the medium.

        Args:
            bundle: its folder.
            manifest: its verified manifest.
            signed: by path, the verified bytes of what it has besides the files of the manifest.
            on_file: called after each file.

        Raises:
            BundleRejected: when a file is altered, additional, or neither in the bundle nor in the store.
            OSError: when the disk is full.
        """
        self._place_blobs(bundle, manifest, signed, on_file)
        home = self._write_tree(manifest, signed)
        switch_link(self.root / "current", manifest.id)
        return home

    def prune(self, keep: int) -> tuple[list[str], int]:
        """Remove old bundles and the contents that no other bundle has; the current one is always kept.

        Args:
            keep: number of bundles to keep besides it, newest first.

        Returns:
            The ids removed, and the bytes freed.
        """
        used = (self.root / "current").resolve()
        trees = [path for path in self.root.iterdir() if (path / MANIFEST).is_file() and not path.is_symlink()]
        old = sorted((path for path in trees if path != used), key=lambda path: path.stat().st_ctime, reverse=True)[
            keep:
        ]
        for path in old:
            shutil.rmtree(path)
        alone = [path for path in self.root.glob("blobs/*/*") if path.stat().st_nlink == 1]
        freed = sum(path.stat().st_size for path in alone)
        for path in alone:
            path.unlink()
        return [path.name for path in old], freed

    def _place_blobs(
        self, bundle: Path, manifest: Manifest, signed: Mapping[str, bytes], on_file: Callable[[Entry], None]
    ) -> None:
        wanted = verify_bundle.files_at(str(bundle), manifest.files)
        known = {*signed, *(entry.path for entry in wanted)}
        brought = [entry for entry in wanted if (bundle / entry.path).is_symlink() or (bundle / entry.path).exists()]
        sources = {entry.sha256: entry for entry in brought}
        held = self._held(manifest)
        lacking = [entry for digest, entry in sources.items() if digest not in held]
        self._refuse_full_disk(bundle, lacking)
        take = set(lacking)

        def problem_of(root: str, entry: Entry) -> str | None:
            return self._take(bundle, entry) if entry in take else verify_bundle.file_problem(root, entry)

        found = verify_bundle.folder_problems(str(bundle), brought, known, on_file, problem_of)
        for digest, entry in {entry.sha256: entry for entry in manifest.files}.items():
            if digest not in sources and digest not in held:
                found.append(f"{entry.path} is missing, here and among the bundles imported before")
        reject(found)

    def _held(self, manifest: Manifest) -> set[str]:
        """Return the sha256 of each content of a bundle that the store has intact."""
        contents = {entry.sha256: entry._replace(path=entry.blob) for entry in manifest.files}
        with ThreadPoolExecutor() as pool:
            problems = pool.map(lambda entry: verify_bundle.file_problem(str(self.root), entry), contents.values())
            return {digest for digest, problem in zip(contents, problems, strict=True) if problem is None}

    def _take(self, bundle: Path, entry: Entry) -> str | None:
        target = self.root / entry.blob
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_incoming(bundle):
            return verify_bundle.copy_verified(str(bundle), entry, str(target))
        problem = verify_bundle.file_problem(str(bundle), entry)
        if problem is None:
            target.unlink(missing_ok=True)
            verify_bundle.place(str(bundle / entry.path), str(target))
        return problem

    def _is_incoming(self, bundle: Path) -> bool:
        """Return whether a folder is one of this store, in which parts were joined: nobody else writes there."""
        return bundle.parent == self.root and bundle.name.startswith(_INCOMING)

    def _refuse_full_disk(self, bundle: Path, lacking: Sequence[Entry]) -> None:
        if not lacking or self._is_incoming(bundle):
            return
        if verify_bundle.clones(str(bundle / lacking[0].path), str(self.root)):
            return
        need, free = sum(entry.size for entry in lacking), shutil.disk_usage(self.root).free
        if need + _SLACK > free:
            raise BundleRejected(
                f"{self.root} has {free / 1e9:.1f} GB free and it needs {need / 1e9:.1f} GB; free that much"
            )

    def _write_tree(self, manifest: Manifest, signed: Mapping[str, bytes]) -> Path:
        home = self.root / manifest.id
        if not home.exists() or verify_bundle.folder_problems(
            str(home), manifest.files, {*signed, *verify_bundle.attestations(str(home))}
        ):
            draft = self.root / f".tree-{manifest.id}"
            shutil.rmtree(draft, ignore_errors=True)
            for entry in manifest.files:
                (draft / entry.path).parent.mkdir(parents=True, exist_ok=True)
                verify_bundle.place(str(self.root / entry.blob), str(draft / entry.path))
            self._write_signed(draft, signed)
            for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
                folder.chmod(0o755)
            verify_bundle.sync(str(draft))
            shutil.rmtree(home, ignore_errors=True)
            draft.rename(home)
        self._write_signed(home, signed)
        return home

    @staticmethod
    def _write_signed(home: Path, signed: Mapping[str, bytes]) -> None:
        for name, data in signed.items():
            path = home / name
            if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
                continue
            path.parent.mkdir(exist_ok=True)
            draft = home.parent / f".signed-{home.name.lstrip('.')}"
            draft.write_bytes(data)
            draft.chmod(0o644)
            verify_bundle.sync(str(draft))
            draft.replace(path)


def switch_link(link: Path, target: str) -> None:
    """Point a symbolic link at a target by one rename."""
    draft = link.with_name(f".{link.name}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(link)
    verify_bundle.sync(str(link.parent))
