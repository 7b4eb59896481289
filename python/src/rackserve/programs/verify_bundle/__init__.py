"""Verify a bundle of rackserve: its signature, its expiry, its attestations and every byte of it.

Hosts and machines without rackserve have it as one file, the zipapp `verify_bundle.pyz`, which needs Python 3.9, its
standard library and `ssh-keygen`. A bundle has one of two layouts: *transport* (`blobs/ab/<sha256>`, each content once)
or *unpacked* (files by their paths). Both have `manifest.json`, which names every path with its size and sha256, and
`manifest.json.sig`. Split for media, a bundle is a folder of parts (`NAME.001`, ...) and `NAME.parts.json`.

    verify_bundle.pyz check  BUNDLE --signers FILE [--revoked FILE]    exit 0, or 1 with the reasons
    verify_bundle.pyz unpack BUNDLE DEST --signers FILE                check, and write the unpacked layout

A bundle comes on a medium that anybody may have written: whatever is wrong with it is `BundleRejected` with one
sentence, never another exception.
"""

from ._commands import main
from ._digests import Digests
from ._files import (
    CHUNK,
    DRAFT,
    MAX_MANIFEST,
    SHOWN,
    clones,
    copy_verified,
    file_problem,
    files_at,
    folder_problems,
    place,
    read_bounded,
    sha256_of,
    sync,
)
from ._manifest import (
    ATTESTATIONS,
    FORMAT,
    HOST_PARTS,
    MANIFEST,
    MAX_VERSION,
    PARTS,
    SIGNATURE,
    VERIFIER,
    BundleRejected,
    Entry,
    canonical,
    check_expiry,
    excerpt,
    is_safe_path,
    manifest_id,
    parse_manifest,
    transport_files,
)
from ._parts import extract, open_parts, part_problems, read_parts
from ._rollback import RollbackProtection, refuse_rollback
from ._signature import (
    ATTESTED,
    NAMESPACE,
    Attestation,
    attestations,
    read_signature,
    signed_files,
    verify_attestations,
    verify_signature,
)

__all__ = [
    "ATTESTATIONS",
    "ATTESTED",
    "CHUNK",
    "DRAFT",
    "FORMAT",
    "HOST_PARTS",
    "MANIFEST",
    "MAX_MANIFEST",
    "MAX_VERSION",
    "NAMESPACE",
    "PARTS",
    "SHOWN",
    "SIGNATURE",
    "VERIFIER",
    "Attestation",
    "BundleRejected",
    "Digests",
    "Entry",
    "RollbackProtection",
    "attestations",
    "canonical",
    "check_expiry",
    "clones",
    "copy_verified",
    "excerpt",
    "extract",
    "file_problem",
    "files_at",
    "folder_problems",
    "is_safe_path",
    "main",
    "manifest_id",
    "open_parts",
    "parse_manifest",
    "part_problems",
    "place",
    "read_bounded",
    "read_parts",
    "read_signature",
    "refuse_rollback",
    "sha256_of",
    "signed_files",
    "sync",
    "transport_files",
    "verify_attestations",
    "verify_signature",
]
