"""What this controller accepts: a bundle that somebody trusted has signed, that still holds, byte for byte."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackserve._paths import state_dir
from rackserve.bundle._manifest import Manifest, parse_manifest
from rackserve.bundle._store import Store, refuse
from rackserve.errors import BundleError
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import MANIFEST, SIGNATURE, Entry, Floor, Refused, attestations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rackserve.bundle._trust import Trust


def _silent(_: Entry) -> None:
    pass


@dataclass(frozen=True)
class Verified:
    """A manifest that a trusted key has signed, whose key that is, and what was attested about it: name -> content."""

    manifest: Manifest
    signer: str
    attested: Mapping[str, dict[str, Any]] = field(default_factory=dict)


class Judge:
    """Says whether a manifest may be used: its signature, its date and, where there is one, the floor."""

    def __init__(self, trust: Trust, floor: Floor | None = None, downgrade_reason: str | None = None) -> None:
        self._trust, self._floor, self._reason = trust, floor, downgrade_reason

    def __call__(self, data: bytes, signature: Path) -> Verified:
        """Return what the manifest says and who signed it.

        Raises:
            Refused: naming what is wrong.
        """
        with self._trust.files() as (signers, revoked):
            signer = verify_bundle.verify_signature(data, str(signature), signers, revoked)
        manifest = parse_manifest(data)
        verify_bundle.check_terms(manifest.terms, dt.datetime.now(dt.UTC).date())
        if self._floor:
            self._floor.check(manifest.terms, manifest.id, self._reason)
        return Verified(manifest, signer)

    def attested(self, bundle: Path) -> dict[str, dict[str, Any]]:
        """Return what was attested about a bundle: name -> content.

        Raises:
            Refused: when somebody who is not trusted attested it, or it is about another bundle.
        """
        found = {}
        digest = verify_bundle.sha256_of(str(bundle / MANIFEST))
        names = sorted(name for name in attestations(str(bundle)) if name.endswith(".json"))
        with self._trust.files() as (signers, revoked):
            for name in names:
                data = verify_bundle.read_bounded(str(bundle), name)
                verify_bundle.verify_signature(data, f"{bundle / name}.sig", signers, revoked, verify_bundle.ATTESTED)
                content = json.loads(data)
                if content.get("manifest_sha256") != digest:
                    raise Refused(f"{name} is about another bundle; it was put here after the build")
                found[Path(name).stem] = content
        return found


def read_intact(bundle: Path, trust: Trust) -> Manifest:
    """Read an imported bundle's manifest, and compare the folder with it.

    Raises:
        BundleError: with a sentence for everything that is wrong: its signature, its date, its bytes.
    """
    try:
        data = verify_bundle.read_bounded(str(bundle), MANIFEST)
        manifest = Judge(trust)(data, bundle / SIGNATURE).manifest
        known = {MANIFEST, SIGNATURE, *attestations(str(bundle))}
        found = verify_bundle.folder_problems(str(bundle), manifest.files, known)
    except Refused as refused:
        found = [str(refused)]
    if found:
        raise BundleError(f"the bundle at {bundle} cannot be used: {'; '.join(found)}")
    return manifest


def read_signed(bundle: Path, trust: Trust) -> Verified:
    """Read an imported bundle by its signatures: the manifest and what was attested; no byte of its files is compared.

    Raises:
        BundleError: naming what is wrong with a signature, a date or who signed.
    """
    judge = Judge(trust)
    with _refusals(bundle):
        verified = judge(verify_bundle.read_bounded(str(bundle), MANIFEST), bundle / SIGNATURE)
        return replace(verified, attested=judge.attested(bundle))


def verify(bundle: Path, trust: Trust, on_file: Callable[[Entry], None] = _silent) -> Verified:
    """Verify a bundle where it lies: whole, as a tree, or cut in parts.

    Raises:
        BundleError: naming what is missing, altered, not in the manifest or not signed.
    """
    judge = Judge(trust)
    with _refusals(bundle):
        parts = verify_bundle.read_parts(str(bundle))
        if parts is None:
            data = verify_bundle.read_bounded(str(bundle), MANIFEST)
            verified = judge(data, bundle / SIGNATURE)
            verified = replace(verified, attested=judge.attested(bundle))
            known = {MANIFEST, SIGNATURE, *attestations(str(bundle))}
            wanted = verify_bundle.files_at(str(bundle), verified.manifest.files)
            refuse(verify_bundle.folder_problems(str(bundle), wanted, known, on_file))
            return verified
        with tempfile.TemporaryDirectory(prefix=".verify-", dir=state_dir()) as scratch:
            _join(bundle, parts, Path(scratch), judge, _silent)
            return verify(Path(scratch), trust, on_file)


def import_bundle(
    bundle: Path, trust: Trust, on_file: Callable[[Entry], None] = _silent, downgrade_reason: str | None = None
) -> tuple[Path, Verified]:
    """Verify a bundle, place it beside the others and make it the one in use.

    It may be whole, cut in parts, or a difference to bundles that were imported before. What an interrupted import has
    placed is used by the next one; the bundle in use stays the one it was until the new one is complete.

    Args:
        bundle: its folder, or the folder of its parts.
        trust: who may sign.
        on_file: called after each file.
        downgrade_reason: why a version older than the newest one imported may be used; it is recorded.

    Returns:
        The folder of the imported bundle, and what was verified.

    Raises:
        BundleError: when it does not verify, or the disk is full.
    """
    with _refusals(bundle), Store(state_dir() / "bundles") as store:
        floor = Floor(str(store.root))
        judge = Judge(trust, floor, downgrade_reason)
        parts = verify_bundle.read_parts(str(bundle))
        source = bundle
        if parts is not None:
            source = store.incoming(parts[0].sha256[:16])
            _join(bundle, parts, source, judge, _silent)
        verified = judge(verify_bundle.read_bounded(str(source), MANIFEST), source / SIGNATURE)
        verified = replace(verified, attested=judge.attested(source))
        home = store.add(source, verified.manifest, on_file)
        floor.record(verified.manifest.terms, verified.manifest.id, verified.signer, downgrade_reason)
        store.tidy()
        return home, verified


def prune(keep: int) -> tuple[list[str], int]:
    """Remove old bundles from this controller; see `Store.prune`.

    Raises:
        BundleError: when another rackserve is importing.
    """
    with Store(state_dir() / "bundles") as store:
        return store.prune(keep)


def _join(bundle: Path, parts: list[Entry], into: Path, judge: Judge, on_file: Callable[[Entry], None]) -> None:
    refuse(verify_bundle.part_problems(str(bundle), parts))

    def trust(data: bytes, signature: str) -> dict[str, Any]:
        return {"files": list(judge(data, Path(signature)).manifest.files)}

    with verify_bundle.open_parts(str(bundle), parts) as stream:
        verify_bundle.extract(stream, str(into), trust, on_file)


@contextmanager
def _refusals(bundle: Path) -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        raise BundleError(f"{bundle}: {refused}") from refused
    except OSError as failed:
        raise BundleError(f"cannot read or write {failed.filename or bundle}: {failed.strerror}") from failed
