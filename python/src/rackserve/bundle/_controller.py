"""The control node's own part of a bundle: its wheels, this project, and what puts both on a bare Debian."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rackserve._paths import project_root
from rackserve._process import run
from rackserve.bundle._manifest import Controller
from rackserve.bundle._wheels import download
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rackserve.bundle._progress import Progress

# What `rackserve` runs on a controller beyond its own environment: ssh and ssh-keygen, and all of Python's library
# (Debian's python3-minimal has no json). The caller puts them, with what they depend on, into the apt repository.
CONTROLLER_PACKAGES: Final = ("openssh-client", "python3")
PYTHON: Final = "3.11"
LOCKS: Final = ("controller.txt", "uv.txt")
FOLDER: Final = "controller"
COMMIT: Final = "COMMIT"
FILES: Final = "FILES"
_EPOCH: Final = 315532800  # 1980-01-01, the first day that a zip file can name
_LINK: Final = "120000"
_PROGRAM: Final = "100755"
_MODES: Final = ("100644", _PROGRAM, _LINK)
_LINE: Final = re.compile(r"(?P<mode>\d{6}) (?P<sha256>[0-9a-f]{64}) (?P<path>.+)")
_SHOWN: Final = 10


@dataclass(frozen=True)
class ProjectFile:
    """One file of the project: its path, its mode as git writes it, and its bytes (of a link, where it leads)."""

    path: str
    mode: str
    data: bytes

    @property
    def line(self) -> str:
        """The file's line in `FILES`."""
        return f"{self.mode} {hashlib.sha256(self.data).hexdigest()} {self.path}\n"


@dataclass(frozen=True)
class Project:
    """The project at one commit."""

    commit: str
    files: tuple[ProjectFile, ...]


def build_controller(draft: Path, scratch: Path, progress: Progress, *, allow_dirty: bool = False) -> Controller:
    """Write the controller's part below `draft/controller`.

    Args:
        draft: the bundle's folder.
        scratch: a folder for what is not kept.
        progress: called before each step.
        allow_dirty: build from a git checkout with changes that are not committed; they are left out.

    Raises:
        InputError: when the checkout has changes, or is not one.
        BundleError: when a wheel cannot be had.
    """
    root = project_root()
    project = read_project(root, scratch, progress, allow_dirty=allow_dirty)
    progress.say(f"the controller: this project at {project.commit[:12]}")
    folder = draft / FOLDER
    (folder / "locks").mkdir(parents=True)
    (folder / "project.tar").write_bytes(project_tar(project))
    contents = {file.path: file.data for file in project.files}
    for name in LOCKS:
        (folder / "locks" / name).write_bytes(contents[f"python/locks/{name}"])
    for name in ("bootstrap.sh", "bootstrap.py"):
        (folder / name).write_bytes(contents[f"python/src/rackserve/programs/{name}"])
    (folder / "packages").write_text("".join(f"{name}\n" for name in CONTROLLER_PACKAGES), encoding="utf-8")
    progress.say(f"wheels of the controller (Python {PYTHON})")
    for name in LOCKS:
        download(folder / "locks" / name, folder / "wheels", PYTHON, scratch, progress)
    return Controller(PYTHON, FOLDER, f"{FOLDER}/project.tar", f"{FOLDER}/locks/{LOCKS[0]}", project.commit)


def read_project(root: Path, scratch: Path, progress: Progress, *, allow_dirty: bool) -> Project:
    """Return the project's tracked files as they are at HEAD, or as the bundle brought them that it came by.

    Raises:
        InputError: when files differ from that, or the folder is neither a git checkout nor came by a bundle.
    """
    if (root / ".git").exists():
        return _from_git(root, scratch, progress, allow_dirty=allow_dirty)
    if (root / FILES).is_file():
        return _from_list(root)
    raise InputError(f"{root} has neither .git nor {FILES}; build from a git checkout, or from one that a bundle made")


def _from_git(root: Path, scratch: Path, progress: Progress, *, allow_dirty: bool) -> Project:
    changed, untracked = parse_status(_git(root, "status", "--porcelain", "-z", "--untracked-files=normal"))
    if changed and not allow_dirty:
        raise InputError(
            f"{root} has changes that are not committed: {_shorten(changed)}; "
            "commit or stash them, or allow a dirty tree, which leaves them out"
        )
    if changed or untracked:
        progress.say(f"left out, as it is not committed: {_shorten([*changed, *untracked])}")
    archive = scratch / "head.tar"
    _git(root, "archive", "--format=tar", f"--output={archive}", "HEAD")
    with tarfile.open(archive) as members:
        files = tuple(_from_member(members, member) for member in members if not member.isdir())
    return Project(_git(root, "rev-parse", "HEAD").strip(), files)


def _git(root: Path, *words: str) -> str:
    # The user's own settings must not change a byte: line ends, modes, attributes.
    settings = ("tar.umask=0022", "core.autocrlf=false", "core.eol=lf", "core.attributesFile=/dev/null")
    options = [word for setting in settings for word in ("-c", setting)]
    env = {**os.environ, "GIT_ATTR_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0"}
    return run(["git", *options, "-C", root, *words], env=env, error=InputError, what="read this checkout with git")


def _from_member(members: tarfile.TarFile, member: tarfile.TarInfo) -> ProjectFile:
    if member.issym():
        return ProjectFile(member.name, _LINK, os.fsencode(member.linkname))
    data = members.extractfile(member)
    if data is None:
        raise InputError(f"{member.name} is neither a file nor a link; a bundle carries no other kind")
    return ProjectFile(member.name, _PROGRAM if member.mode & 0o100 else _MODES[0], data.read())


def parse_status(text: str) -> tuple[list[str], list[str]]:
    """Return the changed and the untracked paths of `git status --porcelain -z`."""
    changed, untracked = [], []
    fields = iter(text.split("\0"))
    for field in fields:
        if field.startswith("?? "):
            untracked.append(field[3:])
        elif field:
            changed.append(field[3:])
            if "R" in field[:2] or "C" in field[:2]:
                next(fields)  # the old name stands in a field of its own
    return changed, untracked


def _from_list(root: Path) -> Project:
    lines = (root / FILES).read_text(encoding="utf-8").splitlines()
    files, changed = [], []
    for line in lines:
        match = _LINE.fullmatch(line)
        if not match or match["mode"] not in _MODES:
            raise InputError(f"{root / FILES} has the line {line!r}; unpack the bundle's project again")
        found = _on_disk(root, match["path"])
        if found is None or found.line != f"{line}\n":
            changed.append(match["path"])
        else:
            files.append(found)
    if changed:
        raise InputError(
            f"{root} differs from its bundle's project: {_shorten(changed)}; "
            "unpack the bundle's project again, or build from a git checkout"
        )
    return Project((root / COMMIT).read_text(encoding="utf-8").strip(), tuple(files))


def _on_disk(root: Path, name: str) -> ProjectFile | None:
    path = root / name
    if path.is_symlink():
        return ProjectFile(name, _LINK, os.fsencode(path.readlink()))
    if not path.is_file():
        return None
    return ProjectFile(name, _PROGRAM if path.stat().st_mode & 0o100 else _MODES[0], path.read_bytes())


def project_tar(project: Project) -> bytes:
    """Return the project as a tar with its commit and the list of its files; equal projects give equal bytes."""
    files = sorted(project.files, key=lambda file: file.path)
    own = (
        ProjectFile(COMMIT, _MODES[0], f"{project.commit}\n".encode()),
        ProjectFile(FILES, _MODES[0], "".join(file.line for file in files).encode()),
    )
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, (*own, *files))
    return out.getvalue()


def _add(tar: tarfile.TarFile, files: Iterable[ProjectFile]) -> None:
    for file in files:
        member = tarfile.TarInfo(file.path)
        member.mtime = _EPOCH
        member.mode = 0o755 if file.mode == _PROGRAM else 0o644
        if file.mode == _LINK:
            member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(file.data)
            tar.addfile(member)
        else:
            member.size = len(file.data)
            tar.addfile(member, io.BytesIO(file.data))


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
