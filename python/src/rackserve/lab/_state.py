"""State of a lab on the controller: lab.json, and run.json per host."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rackserve._files import write_text
from rackserve._paths import state_dir
from rackserve.errors import LabError

from ._spec import check_lab_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._spec import LabSpec

_SCHEMA: Final = 1


@dataclass(frozen=True)
class HostRecord:
    """One host as made. `uuid` is also the guest's machine id, by which its processes are known."""

    lab: str
    name: str
    address: str
    debian_release: int
    uuid: str

    @property
    def machine(self) -> str:
        """Name of the container, unique over all labs."""
        return f"{self.lab}-{self.name}"

    @property
    def netns(self) -> str:
        """Name of the network namespace, which outlives the guest's reboots."""
        return f"rsk-{self.machine}"

    @property
    def veth(self) -> str:
        """Name of the controller's end of the cable."""
        return "rsk" + hashlib.sha256(self.machine.encode()).hexdigest()[:10]

    @property
    def folder(self) -> Path:
        """Folder of the host's root, its overlay and its console.log."""
        return lab_dir(self.lab) / "hosts" / self.name


@dataclass(frozen=True)
class LabRecord:
    """A lab as made."""

    name: str
    prefix: str
    hosts: tuple[HostRecord, ...]

    @property
    def bridge(self) -> str:
        """Name of the lab's switch on the controller."""
        return f"rsk-{self.name}"

    def host(self, name: str) -> HostRecord:
        """Return one host; an unknown one is refused with the known ones."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(f"lab {self.name} has no host {name!r}: it has {', '.join(host.name for host in self.hosts)}")

    def with_host(self, new: HostRecord) -> LabRecord:
        """Return the lab with one host's record replaced."""
        return replace(self, hosts=tuple(new if host.name == new.name else host for host in self.hosts))


@dataclass(frozen=True)
class RunRecord:
    """What a host's supervisor last wrote: how often it booted, in what time, and how it ended."""

    boots: int
    boot_s: float | None = None
    ended: int | None = None


def lab_dir(name: str) -> Path:
    """Return the folder of a lab, whether it exists or not."""
    check_lab_name(name)
    return labs_dir() / name


def labs_dir() -> Path:
    """Return the folder of all labs."""
    return state_dir() / "labs"


def load(name: str) -> LabRecord | None:
    """Read lab.json; None when there is no such lab."""
    path = lab_dir(name) / "lab.json"
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as wrong:
        raise LabError(
            f"{path} is not JSON ({wrong}); restore it, or stop its hosts and remove {path.parent}"
        ) from wrong
    return LabRecord(data["name"], data["prefix"], tuple(HostRecord(**host) for host in data["hosts"]))


def save(record: LabRecord) -> None:
    """Write lab.json in one step."""
    write_json(lab_dir(record.name) / "lab.json", {"schema": _SCHEMA, "bridge": record.bridge, **asdict(record)})


def load_run(host: HostRecord) -> RunRecord | None:
    """Read what the host's supervisor wrote."""
    try:
        return RunRecord(**json.loads((host.folder / "run.json").read_text()))
    except FileNotFoundError:
        return None


def save_run(host: HostRecord, run: RunRecord) -> None:
    """Write run.json in one step."""
    write_json(host.folder / "run.json", asdict(run))


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Replace a file by these keys; a reader sees the old or the new one, never half."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True) + "\n")


def merge(old: LabRecord | None, spec: LabSpec) -> LabRecord:
    """Return the record of a lab asked for: hosts that exist keep their identity, and may not change under way."""
    if old is not None and old.prefix != spec.prefix:
        raise LabError(
            f"lab {spec.name} exists on {old.prefix}.0/24, not {spec.prefix}.0/24; run rackserve lab down first"
        )
    known = {host.name: host for host in old.hosts} if old else {}
    hosts = []
    for want in spec.hosts:
        have = known.get(want.name)
        if have and have.debian_release != want.debian_release and have.folder.exists():
            raise LabError(
                f"{want.name} of lab {spec.name} exists as Debian {have.debian_release}, asked for is "
                f"{want.debian_release}; run rackserve lab down --name {spec.name} first"
            )
        identity = have.uuid if have else str(uuid.uuid4())
        hosts.append(HostRecord(spec.name, want.name, want.address, want.debian_release, identity))
    return LabRecord(spec.name, spec.prefix, tuple(hosts))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one command; a second one waits. The kernel releases it when the holder dies."""
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                same = folder.stat().st_ino == os.fstat(handle).st_ino
            except FileNotFoundError:  # the one before us removed the lab
                same = False
            if same:
                yield
                return
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only an empty one goes: nothing was made in it
            os.close(handle)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, if it is there; never what is mounted in it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted = Path(line.split()[4].replace("\\040", " "))
        if mounted.is_relative_to(path):
            raise LabError(f"{mounted} is still mounted, so {path} is not removed; unmount it and run this again")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
