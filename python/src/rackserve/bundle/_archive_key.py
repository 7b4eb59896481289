"""The OpenPGP key that a bundle's apt repositories are signed with.

gpg is run on a private GNUPGHOME, with the clock standing at the key's own creation. Ed25519 signatures hold no random
number (RFC 8032), so equal text signed by an equal key is equal byte for byte, whenever and wherever it is signed.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rackserve._paths import state_dir
from rackserve._process import run
from rackserve.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC_KEY: Final = "archive-key.gpg"
# Every key is born at this moment, 2020-01-01 UTC: a host whose clock is behind still finds no signature of the future.
_BIRTH: Final = 1577836800
_SECRET: Final = re.compile(
    r"^sec:(?:[^:]*:){4}(?P<born>\d+):.*?^fpr:(?:[^:]*:){8}(?P<id>[0-9A-F]+):", re.MULTILINE | re.DOTALL
)


def make_archive_key(home: Path, name: str) -> Path:
    """Make an ed25519 key without passphrase that never expires, for signing only.

    Args:
        home: the folder that will hold it; it must not exist. Its mode is 0700, that of its files 0600.
        name: whose key it is, as apt shows it.

    Returns:
        `home`, which is what every other function here calls the key.

    Raises:
        BundleError: when the folder exists, or gpg fails.
    """
    if home.exists():
        raise BundleError(f"{home} exists; use the archive key in it, or name a folder that does not exist")
    home.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        with _gpg(draft) as gpg:
            make = [
                "--pinentry-mode=loopback",
                "--passphrase=",
                "--quick-generate-key",
                name,
                "ed25519",
                "sign",
                "never",
            ]
            run([*gpg, _clock(_BIRTH), *make], error=BundleError, what=f"make the archive key {name!r}")
        for path in draft.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        draft.rename(home)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return home


def own_archive_key() -> Path:
    """Return this controller's own key; the first call makes it."""
    home = state_dir() / "archive-key"
    return home if home.exists() else make_archive_key(home, "rackserve archive key")


def clear_sign(key: Path, text: str) -> str:
    """Return a text with its signature around it, as apt reads it from `InRelease`.

    Raises:
        BundleError: when the folder does not hold exactly one secret key, or gpg fails.
    """
    with _gpg(key) as gpg:
        born, fingerprint = _only_secret(gpg, key)
        sign = [
            "--pinentry-mode=error",
            "--digest-algo=SHA512",
            f"--local-user={fingerprint}!",
            "--clear-sign",
            "--output=-",
        ]
        return run([*gpg, _clock(born), *sign], stdin=text, error=BundleError, what="sign the repository")


def export_public_key(key: Path, into: Path) -> None:
    """Write the public half, in the binary form that apt's `signed-by` takes.

    Raises:
        BundleError: when the folder does not hold exactly one secret key, or gpg fails.
    """
    with _gpg(key) as gpg:
        fingerprint = _only_secret(gpg, key)[1]
        export = ["--export-options=export-minimal", f"--output={into}", "--yes", "--export", fingerprint]
        run([*gpg, *export], error=BundleError, what="export the archive key")
    into.chmod(0o644)


def fingerprint_of(key: Path) -> str:
    """Return the key's fingerprint, 40 hex digits, to be compared by a person.

    Raises:
        BundleError: when the folder does not hold exactly one secret key.
    """
    with _gpg(key) as gpg:
        return _only_secret(gpg, key)[1]


def _only_secret(gpg: list[str], key: Path) -> tuple[int, str]:
    listed = run(
        [*gpg, "--with-colons", "--list-secret-keys"], error=BundleError, what=f"read the archive key in {key}"
    )
    found = list(_SECRET.finditer(listed))
    if len(found) != 1:
        raise BundleError(f"{key} holds {len(found)} secret keys; an archive key's folder holds exactly one")
    return int(found[0]["born"]), found[0]["id"]


def _clock(seconds: int) -> str:
    return f"--faked-system-time={seconds}!"


@contextmanager
def _gpg(home: Path) -> Iterator[list[str]]:
    """Yield the words that start gpg on a home, one user at a time; its agent has ended when the block has.

    The agent's socket lies in the home, and the path of a socket has at most 107 bytes (unix(7)), so gpg is given a
    short link to it.
    """
    if not home.is_dir():
        raise BundleError(f"no archive key in {home}: the folder is missing; make one with make_archive_key")
    with tempfile.TemporaryDirectory(prefix="rackserve-gpg-") as short, (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        link = Path(short) / "home"
        link.symlink_to(home.resolve())
        try:
            yield [
                "gpg",
                f"--homedir={link}",
                "--no-options",
                "--batch",
                "--quiet",
                "--no-tty",
                "--no-auto-check-trustdb",
            ]
        finally:
            for end in ("--kill=all", "--remove-socketdir"):
                run(["gpgconf", f"--homedir={link}", *end.split("=")], error=BundleError, what="end gpg's agent")
