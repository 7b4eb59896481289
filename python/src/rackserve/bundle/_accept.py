"""Acceptance of a bundle by this controller: trusted signature, expiry, rollback protection and every byte."""

from __future__ import annotations

import datetime as dt
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackserve._paths import state_dir
from rackserve.bundle._manifest import Manifest, parse_manifest, read_manifest
from rackserve.bundle._store import Store, reject
from rackserve.errors import BundleError
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import MANIFEST, BundleRejected, Entry, RollbackProtection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rackserve.bundle._trust import Trust


def _silent(_: Entry) -> None:
    pass


@dataclass(frozen=True)
class Verified:
    """A manifest signed by a trusted key.

    Attributes:
        manifest: it.
        signer: the key's name.
        attested: the attestations, name -> content.
        signed: by path, the verified bytes of manifest, attestations and signatures.
    """

    manifest: Manifest
    signer: str
    attested: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    signed: Mapping[str, bytes] = field(default_factory=dict)


class ManifestVerifier:
    """Verifies a manifest: its signature, its expiry and, where given, rollback protection."""

    def __init__(
        self, trust: Trust, protection: RollbackProtection | None = None, downgrade_reason: str | None = None
    ) -> None:
        self._trust, self._protection, self._reason = trust, protection, downgrade_reason

    def __call__(self, data: bytes, signature: bytes) -> Verified:
        """Return the parsed manifest and its signer.

        Raises:
            BundleRejected: naming what is wrong.
        """
        with self._trust.files() as (signers, revoked):
            signer = verify_bundle.verify_signature(data, signature, signers, revoked)
        manifest = parse_manifest(data)
        verify_bundle.check_expiry(manifest.terms, dt.datetime.now(dt.UTC).date())
        if self._protection:
            self._protection.check(manifest.terms, manifest.id, self._reason)
        return Verified(manifest, signer, signed=verify_bundle.signed_files(data, signature, {}))

    def read(self, bundle: Path) -> Verified:
        """Return a bundle's manifest, its signer and its attestations.

        Raises:
            BundleRejected: naming what is wrong; also when an untrusted key signed an attestation, or it is about
                another bundle.
        """
        data = verify_bundle.read_bounded(str(bundle), MANIFEST)
        signature = verify_bundle.read_signature(str(bundle), MANIFEST)
        verified = self(data, signature)
        with self._trust.files() as (signers, revoked):

            def verify(attestation: bytes, signature: bytes, name: str) -> str:
                return verify_bundle.verify_signature(
                    attestation, signature, signers, revoked, namespace=verify_bundle.ATTESTED, name=name
                )

            found = verify_bundle.verify_attestations(str(bundle), data, verify)
        return replace(
            verified,
            attested={Path(name).stem: attestation.content for name, attestation in found.items()},
            signed=verify_bundle.signed_files(data, signature, found),
        )


def read_intact(bundle: Path, trust: Trust) -> Manifest:
    """Read an imported bundle's manifest, and compare the folder with it.

    Raises:
        BundleError: with a sentence for each problem: signature, expiry, altered files.
    """
    try:
        data = verify_bundle.read_bounded(str(bundle), MANIFEST)
        verified = ManifestVerifier(trust)(data, verify_bundle.read_signature(str(bundle), MANIFEST))
        known = {*verified.signed, *verify_bundle.attestations(str(bundle))}
        found = verify_bundle.folder_problems(str(bundle), verified.manifest.files, known)
    except BundleRejected as refused:
        found = [str(refused)]
    if found:
        raise BundleError(f"the bundle at {bundle} cannot be used: {'; '.join(found)}")
    return verified.manifest


def read_signed(bundle: Path, trust: Trust) -> Verified:
    """Read an imported bundle's manifest and attestations by their signatures; its files are not compared.

    Raises:
        BundleError: for a bad signature, an untrusted signer or an expired bundle.
    """
    with _refusals(bundle):
        return ManifestVerifier(trust).read(bundle)


def carried_bytes(bundle: Path) -> int:
    """Return the bytes of a bundle, or of its parts, as its own lists say; nothing of it is verified.

    Raises:
        BundleError: when it has no list, or an invalid one.
    """
    with _refusals(bundle):
        parts = verify_bundle.read_parts(str(bundle))
    return sum(part.size for part in parts) if parts else read_manifest(bundle).size


def verify(bundle: Path, trust: Trust, on_file: Callable[[Entry], None] = _silent) -> Verified:
    """Verify a bundle in place: transport layout, unpacked, or split in parts.

    Raises:
        BundleError: naming what is missing, altered, not in the manifest or not signed.
    """
    verifier = ManifestVerifier(trust)
    with _refusals(bundle):
        parts = verify_bundle.read_parts(str(bundle))
        if parts is None:
            verified = verifier.read(bundle)
            wanted = verify_bundle.files_at(str(bundle), verified.manifest.files)
            reject(verify_bundle.folder_problems(str(bundle), wanted, verified.signed, on_file))
            return verified
        with tempfile.TemporaryDirectory(prefix=".verify-", dir=state_dir()) as scratch:
            _join(bundle, parts, Path(scratch), verifier, _silent)
            return verify(Path(scratch), trust, on_file)


def import_bundle(
    bundle: Path, trust: Trust, on_file: Callable[[Entry], None] = _silent, downgrade_reason: str | None = None
) -> tuple[Path, Verified]:
    """Verify a bundle, add it to the store and make it the current one.

    It may be whole, split in parts, or a difference to bundles that were imported before. An interrupted import is
    resumed by the next one; the current bundle does not change until the new one is complete.

    Args:
        bundle: its folder, or the folder of its parts.
        trust: the trusted keys.
        on_file: called after each file.
        downgrade_reason: why a version older than the newest one imported may be used; it is recorded.

    Returns:
        The folder of the imported bundle, and what was verified.

    Raises:
        BundleError: when it does not verify, or the disk is full.
    """
    with _refusals(bundle), Store(state_dir() / "bundles") as store:
        protection = RollbackProtection(str(store.root))
        verifier = ManifestVerifier(trust, protection, downgrade_reason)
        parts = verify_bundle.read_parts(str(bundle))
        source = bundle
        if parts is not None:
            source = store.incoming(parts[0].sha256[:16])
            _join(bundle, parts, source, verifier, _silent)
        verified = verifier.read(source)
        home = store.add(source, verified.manifest, verified.signed, on_file)
        protection.record(verified.manifest.terms, verified.manifest.id, verified.signer, downgrade_reason)
        store.tidy()
        return home, verified


def prune(keep: int) -> tuple[list[str], int]:
    """Remove old bundles from this controller; see `Store.prune`.

    Raises:
        BundleError: when another rackserve is importing.
    """
    with Store(state_dir() / "bundles") as store:
        return store.prune(keep)


def _join(
    bundle: Path, parts: list[Entry], into: Path, verifier: ManifestVerifier, on_file: Callable[[Entry], None]
) -> None:
    reject(verify_bundle.part_problems(str(bundle), parts))

    def trust(data: bytes, signature: bytes) -> dict[str, Any]:
        return {"files": list(verifier(data, signature).manifest.files)}

    with verify_bundle.open_parts(str(bundle), parts) as stream:
        verify_bundle.extract(stream, str(into), trust, on_file)


@contextmanager
def _refusals(bundle: Path) -> Iterator[None]:
    try:
        yield
    except BundleRejected as refused:
        raise BundleError(f"{bundle}: {refused}") from refused
    except OSError as failed:
        raise BundleError(f"cannot read or write {failed.filename or bundle}: {failed.strerror}") from failed
