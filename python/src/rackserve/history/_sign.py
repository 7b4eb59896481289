"""This controller's key for the history, and its signatures (ssh-keygen -Y, namespace rackserve-history)."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import re
import tempfile
from typing import TYPE_CHECKING, Any, Final

from rackserve._paths import state_dir
from rackserve._process import run
from rackserve.errors import RunError

if TYPE_CHECKING:
    from pathlib import Path

NAMESPACE: Final = "rackserve-history"
_KEY: Final = "run-history"
_GOOD: Final = re.compile(r"(SHA256:\S+)")


def signing_key() -> Path:
    """Return the private key, mode 0600 in the state folder; made on first use, by one process at a time.

    Raises:
        RunError: when ssh-keygen fails.
    """
    path = state_dir() / "keys" / _KEY
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with (path.parent / f".{_KEY}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.with_name(f"{_KEY}.pub").exists():
            path.unlink(missing_ok=True)
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", _KEY, "-f", str(path)]
            run(words, error=RunError, what="make the key of the history")
    return path


def fingerprint() -> str:
    """Return the key's fingerprint, as `ssh-keygen -l` writes it."""
    blob = base64.b64decode(signing_key().with_name(f"{_KEY}.pub").read_text(encoding="ascii").split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def canonical(entry: object) -> str:
    """Return the one text of an entry, which is signed."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))


def sign(entry: object) -> str:
    """Return the SSH signature of an entry.

    Raises:
        RunError: when ssh-keygen fails.
    """
    words = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(signing_key())]
    return run(words, error=RunError, what="sign the record of the run", stdin=canonical(entry))


def signed_line(entry: dict[str, Any]) -> str:
    """Return one line of a history: the entry and its signature."""
    return canonical({"entry": entry, "signature": sign(entry)})


def signer_of(entry: object, signature: str) -> str | None:
    """Return the fingerprint of the key that signed an entry, or None where the signature is not one of this entry."""
    with tempfile.NamedTemporaryFile("w", suffix=".sig", encoding="utf-8") as file:
        file.write(signature)
        file.flush()
        words = ["ssh-keygen", "-Y", "check-novalidate", "-n", NAMESPACE, "-s", file.name]
        try:
            said = run(words, error=RunError, what="verify a record", stdin=canonical(entry))
        except RunError:
            return None
    found = _GOOD.search(said)
    return found[1] if found else None
