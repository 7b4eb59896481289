"""Signatures of a manifest and of attestations, by `ssh-keygen -Y`."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

from ._files import read_bounded
from ._manifest import ATTESTATIONS, MANIFEST, BundleRejected, load_json

if TYPE_CHECKING:
    from collections.abc import Callable

NAMESPACE = "rackserve-bundle"
ATTESTED = "rackserve-attestation"
MAX_SIGNED = 1 << 20

_FINGERPRINT = re.compile(r"key (SHA256:\S+)")
_ATTESTATION = re.compile(r"[a-z-]+\.json(\.sig)?")
_MAX_ATTESTATIONS = 16


class Attestation(NamedTuple):
    """What was found about a bundle on some day: the bytes, their signature, and the object in them."""

    data: bytes
    signature: bytes
    content: dict[str, Any]


def read_signature(root: str, name: str) -> bytes:
    """Return the signature beside a file of a bundle.

    Raises:
        BundleRejected: when it is missing, too large or not a plain file.
    """
    if not os.path.lexists(os.path.join(root, f"{name}.sig")):
        raise BundleRejected(f"{os.path.basename(name)}.sig is missing: {os.path.basename(name)} is not signed")
    return read_bounded(root, f"{name}.sig", MAX_SIGNED)


def verify_signature(
    data: bytes,
    signature: bytes,
    signers: str,
    revoked: str | None = None,
    *,
    namespace: str = NAMESPACE,
    name: str = MANIFEST,
) -> str:
    """Return the name of the signer of a manifest's bytes, or of an attestation.

    Args:
        data: the bytes that were signed.
        signature: the signature.
        signers: path of an allowed-signers file (ssh-keygen(1), ALLOWED SIGNERS).
        revoked: path of a list of public keys, or of a KRL.
        namespace: the signature's namespace (ssh-keygen -n).
        name: the file's name, for messages.

    Raises:
        BundleRejected: for a bad signature or a key that is untrusted, expired or revoked.
    """
    if not shutil.which("ssh-keygen"):
        raise BundleRejected("ssh-keygen is not on this machine; install openssh-client, or give --manifest-sha256")
    with tempfile.NamedTemporaryFile(prefix="rackserve-signature-") as file:
        file.write(signature)
        file.flush()
        known = ["-n", namespace, "-s", file.name]
        checked = _keygen(data, "check-novalidate", *known)
        found = _FINGERPRINT.search(checked.stdout.decode("utf-8", "replace"))
        if checked.returncode != 0 or not found:
            raise BundleRejected(f"{name}.sig is not a signature of {name}: {_last_line(checked)}")
        fingerprint = found.group(1)
        names = signer_names(signers, fingerprint)
        if not names:
            trusted = ", ".join(sorted(set(signer_names(signers)))) or "none"
            raise BundleRejected(
                f"{name} is signed with the key {fingerprint}, which is not a trusted key; trusted are: {trusted}"
            )
        extra = ["-r", revoked] if revoked else []
        for signer in names:
            checked = _keygen(data, "verify", *known, "-f", signers, "-I", signer, *extra)
            if checked.returncode == 0:
                return signer
    if b"signature namespace" in checked.stderr:
        raise BundleRejected(
            f"{name} is signed with the key of {names[0]}, which may not sign it; add {namespace} to the namespaces of "
            "that key's line in the signers file"
        )
    raise BundleRejected(f"the key {fingerprint} of {names[0]} is expired or revoked: {_last_line(checked)}")


def signer_names(signers: str, fingerprint: str | None = None) -> list[str]:
    """Return the signers' names in an allowed-signers file: all, or those of one key.

    Raises:
        BundleRejected: when the file cannot be read.
    """
    found = []
    try:
        with open(signers, encoding="utf-8") as source:
            lines = [line.split() for line in source if line.strip() and not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as failed:
        raise BundleRejected(f"the signers file {signers} cannot be read: {failed}") from failed
    for words in lines:
        for kind, key in zip(words[1:], words[2:]):
            if kind.startswith(("ssh-", "sk-", "ecdsa-")) and fingerprint in {None, _fingerprint(key)}:
                found.append(words[0])
    return found


def _fingerprint(key: str) -> str:
    try:
        digest = hashlib.sha256(base64.b64decode(key)).digest()
    except ValueError:
        return ""
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _keygen(data: bytes, action: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", "-Y", action, *options], input=data, capture_output=True, check=False)


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).decode("ascii", "replace").splitlines()
    return lines[-1] if lines else "no reason"


def attestations(bundle: str) -> set[str]:
    """Return the paths of a bundle's attestations and of their signatures; they are added after the build."""
    folder = os.path.join(bundle, ATTESTATIONS)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return {f"{ATTESTATIONS}/{name}" for name in names if _ATTESTATION.fullmatch(name)}


def is_attestation(path: str) -> bool:
    """Return whether a path is one that an attestation, or its signature, may have."""
    folder, _, name = path.partition("/")
    return folder == ATTESTATIONS and _ATTESTATION.fullmatch(name) is not None


def verify_attestations(
    bundle: str, manifest: bytes, verify: Callable[[bytes, bytes, str], object]
) -> dict[str, Attestation]:
    """Return the attestations of a bundle by their paths.

    Args:
        bundle: its folder.
        manifest: the bytes of its manifest.
        verify: given bytes, their signature and the file's name, it rejects what no trusted key signed.

    Raises:
        BundleRejected: when one is not signed by a trusted key, is not a JSON object, or is about another bundle.
    """
    digest = hashlib.sha256(manifest).hexdigest()
    names = attestations(bundle)
    if len(names) > 2 * _MAX_ATTESTATIONS:
        raise BundleRejected(f"{ATTESTATIONS} has {len(names)} files; at most {2 * _MAX_ATTESTATIONS} are read")
    found = {}
    for name in sorted({re.sub(r"\.sig$", "", name) for name in names}):
        if name not in names:
            raise BundleRejected(f"{name} is missing; there is only its signature")
        data, signature = read_bounded(bundle, name, MAX_SIGNED), read_signature(bundle, name)
        verify(data, signature, os.path.basename(name))
        content = load_json(data, name)
        if not isinstance(content, dict):
            raise BundleRejected(f"{name} is not a JSON object; have it made again, or remove it and its signature")
        if content.get("manifest_sha256") != digest:
            raise BundleRejected(f"{name} is about another bundle; it was put here after the build")
        found[name] = Attestation(data, signature, content)
    return found


def signed_files(manifest: bytes, signature: bytes, attested: dict[str, Attestation]) -> dict[str, bytes]:
    """Return by path the verified bytes of what a bundle has besides the files of its manifest."""
    files = {MANIFEST: manifest, f"{MANIFEST}.sig": signature}
    for name, attestation in attested.items():
        files.update({name: attestation.data, f"{name}.sig": attestation.signature})
    return files
