"""Keys for signing, and signatures, both by `ssh-keygen`."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from rackserve._paths import state_dir
from rackserve._process import run
from rackserve.errors import BundleError, InputError
from rackserve.programs.verify_bundle import ATTESTATIONS, ATTESTED, MANIFEST, NAMESPACE, sha256_of

if TYPE_CHECKING:
    from pathlib import Path


def key_path(name: str) -> Path:
    """Return where this machine keeps the private key of a signer."""
    return state_dir() / "keys" / name


def make_key(name: str) -> Path:
    """Make a signing key and return the path of its public half; one that is there already is kept.

    Raises:
        BundleError: when ssh-keygen fails.
    """
    path = key_path(name)
    public = path.with_name(f"{path.name}.pub")
    if not public.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path],
            error=BundleError,
            what="make a signing key",
        )
    return public


def sign(bundle: Path, key: Path) -> None:
    """Sign a bundle's manifest; an earlier signature is replaced.

    Args:
        bundle: its folder.
        key: a private key, or a public one whose private half an ssh-agent holds.

    Raises:
        InputError: when there is no such key.
        BundleError: when ssh-keygen cannot sign with it.
    """
    sign_file(bundle / MANIFEST, key, NAMESPACE)


def attest(bundle: Path, name: str, content: dict[str, Any], key: Path) -> None:
    """Write and sign something that was found out about a bundle, such as an audit: true of one day, so no part of it.

    Args:
        bundle: its folder.
        name: of lower-case letters and `-`.
        content: what was found; the manifest's sha256 is added.
        key: as for `sign`.

    Raises:
        InputError: when there is no such key.
        BundleError: when ssh-keygen cannot sign with it.
    """
    path = bundle / ATTESTATIONS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    about = {"manifest_sha256": sha256_of(str(bundle / MANIFEST)), **content}
    path.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sign_file(path, key, ATTESTED)


def sign_file(path: Path, key: Path, namespace: str) -> None:
    """Sign a file; the signature lies beside it, and replaces an earlier one.

    Raises:
        InputError: when there is no such key.
        BundleError: when ssh-keygen cannot sign with it.
    """
    require_key(key)
    path.with_name(f"{path.name}.sig").unlink(missing_ok=True)
    run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key, path],
        error=BundleError,
        what=f"sign {path.name}",
    )


def fingerprint_of(signature: Path) -> str:
    """Return the fingerprint of the key that made an SSH signature, as `ssh-keygen -l` writes it (PROTOCOL.sshsig)."""
    lines = signature.read_text(encoding="ascii").splitlines()
    blob = base64.b64decode("".join(line for line in lines if not line.startswith("-----")))
    start = len(b"SSHSIG") + 8  # after the magic come a version and the length of the key, four bytes each
    key = blob[start : start + int.from_bytes(blob[start - 4 : start], "big")]
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def require_key(key: Path) -> None:
    """Refuse a key that is not there.

    Raises:
        InputError: naming it.
    """
    if not key.exists():
        raise InputError(
            f"there is no signing key {key}; make one with `rackserve bundle key {key.name}`, or give --sign-with FILE"
        )
