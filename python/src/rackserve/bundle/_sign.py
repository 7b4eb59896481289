"""Keys for signing, and signatures, both by `ssh-keygen`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve._paths import state_dir
from rackserve._process import run
from rackserve.bundle.verify_bundle import MANIFEST, NAMESPACE, SIGNATURE
from rackserve.errors import BundleError, InputError

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
    require_key(key)
    (bundle / SIGNATURE).unlink(missing_ok=True)
    run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key, bundle / MANIFEST],
        error=BundleError,
        what="sign the manifest",
    )


def require_key(key: Path) -> None:
    """Refuse a key that is not there.

    Raises:
        InputError: naming it.
    """
    if not key.exists():
        raise InputError(
            f"there is no signing key {key}; make one with `rackserve bundle key {key.name}`, or give --sign-with FILE"
        )
