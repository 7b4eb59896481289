"""What our modules share on a host. Standard library only, Python 3.9 and newer."""

from __future__ import annotations

import hashlib
import os
import subprocess

CHUNK = 1 << 20


def sha256_of(path: str) -> str:
    """Return the sha256 of a file in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_durably(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that it is either the old or the new one, even after a power loss."""
    draft = f"{path}.new"
    with open(draft, "wb") as target:
        target.write(data)
        os.fchmod(target.fileno(), mode)
        target.flush()
        os.fsync(target.fileno())
    os.replace(draft, path)
    sync_folder(os.path.dirname(path))


def switch_link(link: str, target: str) -> bool:
    """Point a symbolic link at a target by one atomic rename; return whether it pointed elsewhere before."""
    if os.path.islink(link) and os.readlink(link) == target:
        return False
    draft = f"{link}.new"
    if os.path.lexists(draft):
        os.unlink(draft)
    os.symlink(target, draft)
    os.replace(draft, link)
    sync_folder(os.path.dirname(link))
    return True


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def run(argv: list[str], env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run a program and return its exit code, standard output and standard error."""
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def tail(text: str, lines: int = 20) -> str:
    """Return the last lines of a program's output."""
    return "\n".join(text.strip().splitlines()[-lines:])
