"""Makes this machine a controller from the bundle that this file lies in; `bootstrap.sh` beside it starts it.

Standard library only, with neither pip nor venv: Debian's bare Python has none of them. A release is a folder in
`DEST-releases/`, built at the path where it stays; `DEST` is a link, and switches to it by one rename once it is whole.
What was cut off, even by kill -9, is thrown away by the next run.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

OLDEST = (3, 11)
DEFAULT = Path("/opt/rackserve")
COMPLETE = ".rackserve-complete"
LOCKS = ("uv.txt", "controller.txt")
SPARE_BYTES = 64 << 20
_BLOCK = 4096
_TAIL_LINES = 15
_SHOWN = 10
_CPYTHON = re.compile(r"-cp(?P<major>3)(?P<minor>\d+)-cp3\d+-")


class CannotBootstrapError(Exception):
    """One clear message that names the next step."""


def check_python(version: tuple[int, int], wheels: Iterable[str]) -> None:
    """Refuse a Python that is too old, or that the bundle has no wheels for."""
    found = ".".join(map(str, version))
    if version < OLDEST:
        raise CannotBootstrapError(f"rackserve needs Python 3.11 or newer; {sys.executable} is {found}")
    matches = (_CPYTHON.search(name) for name in wheels)
    # A wheel of the stable ABI (abi3) names the oldest Python that it supports, and fits newer ones too.
    fitting = {(int(match["major"]), int(match["minor"])) for match in matches if match}
    if fitting and version not in fitting:
        known = ", ".join(f"{major}.{minor}" for major, minor in sorted(fitting))
        raise CannotBootstrapError(f"this bundle's controller is for Python {known}; {sys.executable} is {found}")


def check_files(bundle: Path) -> None:
    """Compare the controller's files with the bundle's manifest; `bundle verify` checks signatures."""
    try:
        entries = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["files"]
        wanted = {e["path"]: (e["size"], e["sha256"]) for e in entries if e["path"].startswith("controller/")}
    except (OSError, ValueError, KeyError, TypeError) as bad:
        raise CannotBootstrapError(f"{bundle} has no readable manifest.json ({bad}); copy the bundle again") from bad
    found = {str(path.relative_to(bundle)): path for path in (bundle / "controller").rglob("*") if not path.is_dir()}
    wrong = {name for name, path in found.items() if (path.stat().st_size, _sha256(path)) != wanted.get(name)}
    if wrong := wrong | (wanted.keys() - found.keys()):
        listed = ", ".join(sorted(wrong)[:_SHOWN])
        raise CannotBootstrapError(f"{bundle} differs from its manifest ({listed}); copy the bundle again")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def room_needed(sizes: Iterable[int]) -> int:
    """Return the bytes that files of these sizes take on disk, in whole blocks, and some to spare."""
    return SPARE_BYTES + sum(-(-size // _BLOCK) * _BLOCK for size in sizes)


def check_room(wheels: Sequence[Path], releases: Path) -> None:
    """Refuse a disk that the environment does not fit on."""
    sizes = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            sizes += [member.file_size for member in archive.infolist()]
    needed, free = room_needed(sizes), shutil.disk_usage(releases).free
    if free < needed:
        raise CannotBootstrapError(f"{releases} has {free >> 20} MiB free, and {needed >> 20} are needed: make room")


def release_id(controller: Path, version: tuple[int, int]) -> str:
    """Return the name of a release: another commit, lock or Python gives another one."""
    with tarfile.open(controller / "project.tar") as tar:
        member = tar.extractfile("COMMIT")
        commit = member.read(12).decode() if member else ""
    digest = hashlib.sha256(b"".join((controller / "locks" / name).read_bytes() for name in LOCKS)).hexdigest()
    return f"{commit}-{digest[:12]}-py{version[0]}{version[1]}"


def unsafe(members: Sequence[tarfile.TarInfo]) -> list[str]:
    """Return the members that are or link outside of the folder, are duplicates, or are neither files nor links.

    Debian 12's Python 3.11.2 has no extraction filters.
    """
    links = {member.name for member in members if member.issym()}
    found, seen = [], set()
    for member in members:
        path = PurePosixPath(member.name)
        leads_out = member.issym() and os.path.normpath(path.parent / member.linkname).startswith(("/", ".."))
        lies_out = path.is_absolute() or ".." in path.parts or links.intersection(map(str, path.parents))
        if leads_out or lies_out or path in seen or not (member.isreg() or member.issym()):
            found.append(member.name)
        seen.add(path)
    return found


def unpack_project(archive: Path, into: Path) -> None:
    """Write the project's files and links; only names, bytes and the executable bit of the tar are used."""
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        if bad := unsafe(members):
            raise CannotBootstrapError(f"{archive} has unsafe members: {bad[:_SHOWN]}; do not use this bundle")
        for member in members:
            path = into / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content := tar.extractfile(member) if member.isreg() else None:
                path.write_bytes(content.read())
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
            else:
                path.symlink_to(member.linkname)


def unpack_uv(wheels: Sequence[Path], lock: str, into: Path) -> Path:
    """Take uv's program out of its wheel, once the wheel's hash is right, and return its path."""
    found = [wheel for wheel in wheels if wheel.name.startswith("uv-")]
    if len(found) != 1 or f"sha256:{_sha256(found[0])}" not in lock:
        raise CannotBootstrapError(f"locks/uv.txt names {[w.name for w in found]} by no hash; copy the bundle again")
    with zipfile.ZipFile(found[0]) as archive:
        data = archive.read(next(name for name in archive.namelist() if name.endswith(".data/scripts/uv")))
    program = into / "uv"
    program.write_bytes(data)
    program.chmod(0o755)
    return program


def build(home: Path, controller: Path, wheels: Sequence[Path], lock: int) -> None:
    """Make a release; it counts as complete only once its programs have run and it is on the disk."""
    tools, venv = home / ".tools", home / ".venv"
    tools.mkdir(parents=True)
    with step("project"):
        unpack_project(controller / "project.tar", home)
    with step("uv, out of its wheel"):
        uv = unpack_uv(wheels, (controller / "locks" / "uv.txt").read_text(encoding="utf-8"), tools)
    # Its cache lies beside the environment, so that files get there by a hard link and not by a second copy.
    settings = {"UV_CACHE_DIR": str(tools / "cache"), "UV_LINK_MODE": "hardlink", "UV_NO_INSTALLER_METADATA": "1"}
    settings |= {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "VIRTUAL_ENV": str(venv)}
    install = (uv, "pip", "install", "--offline", "--no-index")
    with step("empty environment"):
        run([uv, "venv", "--python", sys.executable, venv], lock, settings)
    with step(f"{len(wheels)} wheels, each by its hash"):
        locks = [word for name in LOCKS for word in ("--requirement", controller / "locks" / name)]
        only = ("--require-hashes", "--only-binary=:all:", "--find-links", controller / "wheels")
        run([*install, *only, *locks], lock, settings)
    with step("rackserve"):
        run([*install, "--no-deps", "--no-build-isolation", "--editable", home], lock, settings)
    with step("first run of rackserve and Ansible"):
        check(home, lock)
    with step("all of it on the disk"):
        shutil.rmtree(tools)
        os.sync()
        (home / COMPLETE).touch()


def check(home: Path, lock: int) -> None:
    """Run the installed programs."""
    for program in ("rackserve", "ansible-playbook"):
        run([home / ".venv" / "bin" / program, "--version"], lock)


def check_again(home: Path, lock: int) -> None:
    """Run the programs that an earlier run installed."""
    try:
        with step(f"{home.name} is there already, and runs"):
            check(home, lock)
    except (OSError, CannotBootstrapError) as broken:
        raise CannotBootstrapError(f"{broken}\nrm -r {home}, then run this again") from broken


def run(argv: Sequence[str | Path], lock: int, settings: Mapping[str, str] | None = None) -> None:
    """Run a program without this machine's own settings of uv, pip or Python.

    It holds the lock too: if this process is killed, the next run waits until what it started has ended.
    """
    words = [str(word) for word in argv]
    with tempfile.TemporaryDirectory() as home:
        env = {"PATH": os.defpath, "HOME": home, "LC_ALL": "C.UTF-8", **(settings or {})}
        done = subprocess.run(words, env=env, cwd=home, pass_fds=[lock], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_TAIL_LINES:])
        raise CannotBootstrapError(f"{' '.join(words[:3])} ended with {done.returncode}:\n{tail}")


@contextmanager
def step(what: str, quiet_s: float = 0) -> Iterator[None]:
    """Print what was done, and how long it took; nothing if that was less than `quiet_s`."""
    started = time.monotonic()
    yield
    if (took := time.monotonic() - started) >= quiet_s:
        sys.stderr.write(f"[controller] {what}: {took:.1f} s\n")


@contextmanager
def locked(releases: Path) -> Iterator[int]:
    """Hold the lock of a folder of releases, waiting for another run to end."""
    releases.mkdir(parents=True, exist_ok=True)
    handle = os.open(releases / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with step("wait for another run to end", quiet_s=1):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def remove_halves(releases: Path) -> None:
    """Remove every incomplete release."""
    for home in releases.iterdir():
        if home.is_dir() and not (home / COMPLETE).exists():
            with step(f"remove {home.name}, which is not whole"):
                shutil.rmtree(home)


def switch(dest: Path, home: Path) -> None:
    """Point DEST at a release by one rename."""
    link = dest.with_name(f".{dest.name}.new")
    link.unlink(missing_ok=True)
    link.symlink_to(home.relative_to(dest.parent))
    link.replace(dest)


def check_dest(dest: Path) -> None:
    """Refuse to replace anything but a link to a release."""
    ours = dest.is_symlink() and dest.readlink().parts[0] == f"{dest.name}-releases"
    if not ours and os.path.lexists(dest):
        raise CannotBootstrapError(f"{dest} exists and is not a link to a release; move it away, or name another DEST")


def bootstrap(bundle: Path, dest: Path) -> None:
    """Make this machine a controller, unless it is one already."""
    controller = bundle / "controller"
    wheels = sorted((controller / "wheels").glob("*.whl"))
    version = sys.version_info[:2]
    check_python(version, [wheel.name for wheel in wheels])
    check_dest(dest)
    with step("bundle's files, each by its sha256"):
        check_files(bundle)
    releases = dest.with_name(f"{dest.name}-releases")
    with locked(releases) as lock:
        remove_halves(releases)
        home = releases / release_id(controller, version)
        if home.exists():
            check_again(home, lock)
        else:
            check_room(wheels, releases)
            try:
                build(home, controller, wheels, lock)
            finally:
                remove_halves(releases)
        switch(dest, home)


def main(argv: Sequence[str] | None = None) -> int:
    """Run all of it; 0 when the controller is ready, 2 when it could not be made."""
    parser = argparse.ArgumentParser(prog="bootstrap.sh", description="Makes this machine a controller.")
    parser.add_argument("dest", nargs="?", type=Path, default=DEFAULT, metavar="DEST", help=f"default: {DEFAULT}")
    bundle = Path(__file__).absolute().parents[1]
    started = time.monotonic()
    os.umask(0o022)
    dest = Path(os.path.abspath(parser.parse_args(argv).dest))
    try:
        bootstrap(bundle, dest)
    except (CannotBootstrapError, OSError) as error:
        hint = f"; name a DEST that may be written and run from (it is {dest})" if isinstance(error, OSError) else ""
        sys.stderr.write(f"bootstrap: {error}{hint}\n")
        return 2
    sys.stderr.write(f"[controller] ready at {dest}: {time.monotonic() - started:.1f} s in all\n")
    program = dest / ".venv" / "bin" / "rackserve"
    commands = (f"bundle import {shlex.quote(str(bundle))}", "apply --inventory DIR", "verify --inventory DIR")
    sys.stdout.write("next:\n" + "".join(f"  {shlex.quote(str(program))} {command}\n" for command in commands))
    return 0


if __name__ == "__main__":
    sys.exit(main())
