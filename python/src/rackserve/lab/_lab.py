"""The lab as a whole: what the commands and the tests call."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rackserve.errors import LabError

from . import _host, _network, _snapshot, _ssh
from ._inotify import check_room
from ._pki import ensure_pki
from ._processes import find, send
from ._spec import EDGE_HOST, LabSpec, make_spec
from ._state import HostRecord, LabRecord, lab_dir, load, load_run, locked, merge, remove_tree, save
from ._tree import base_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_TOOLS: Final = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
}


@dataclass(frozen=True)
class HostStatus:
    """One host as it is now. `packets_left_lab` is None when nothing counts them, which is not zero."""

    name: str
    address: str
    release: int
    state: str
    leader: int | None
    supervised: bool
    boot_s: float | None
    boots: int
    packets_left_lab: int | None
    has_default_route: bool | None


@dataclass(frozen=True)
class LabStatus:
    """The state of a lab; `changed`: whether the command that returned it did anything."""

    name: str
    prefix: str
    hosts: tuple[HostStatus, ...]
    changed: bool = False


def _quiet(_message: str) -> None:
    """Do nothing."""


def lab_spec(name: str, *, prefix: str | None = None, releases: Mapping[str, int] | None = None) -> LabSpec:
    """Return the built-in lab of a name; what is not given is as it was when the lab was put up, else the default."""
    record = load(name)
    known = {host.name: host.debian_release for host in record.hosts} if record else {}
    return make_spec(name, prefix or (record.prefix if record else None), {**known, **(releases or {})})


def up(spec: LabSpec, progress: Callable[[str], None] = _quiet, *, only: Sequence[str] = ()) -> LabStatus:
    """Have these hosts run: the ones that do are left alone, half-made ones are repaired.

    Args:
        spec: the lab.
        progress: called with each step.
        only: names of the hosts to put up; all by default.
    """
    _check_machine()
    with locked(lab_dir(spec.name)):
        record = merge(load(spec.name), spec)
        chosen = [record.host(name) for name in dict.fromkeys(only)] or list(record.hosts)
        waiting = [host for host in chosen if not _host.is_up(host)]
        check_room(len(waiting))
        trees = {
            host.debian_release: base_tree(host.debian_release, progress)
            for host in waiting
            if not _host.is_prepared(host)
        }
        _network.ensure_bridge(record, lab_dir(record.name))
        save(record)
        _ssh.ensure_key(record.name)
        edge = next((host.address for host in record.hosts if host.name == EDGE_HOST), f"{record.prefix}.1")
        changed = ensure_pki(lab_dir(record.name) / "pki", record.name, edge)
        for host in chosen:
            if host not in waiting:
                progress(f"{host.name}: runs already")
                continue
            if not _host.is_prepared(host):
                progress(f"{host.name}: a fresh Debian {host.debian_release} root")
                _host.prepare(record, host, [trees[host.debian_release]])
            _host.start(record, host)
        _ssh.write_client_files(record)
        for host in chosen:  # one that an interrupted command started may still be booting
            seconds = _host.wait_up(host)
            if host in waiting:
                progress(f"{host.name}: up at {host.address}, booted in {seconds:.1f} s")
    return replace(status(spec.name), changed=changed or bool(waiting))


def down(name: str, progress: Callable[[str], None] = _quiet) -> bool:
    """Remove a lab and all it made but the cached trees; return whether there was anything to remove."""
    folder = lab_dir(name)
    if not folder.exists():
        return False
    _check_root()
    with locked(folder):
        record = load(name)
        for host in record.hosts if record else ():
            _host.halt(host)
            progress(f"{host.name}: removed")
        if record:
            _network.remove_bridge(record)
        remove_tree(folder)
    if not any(folder.parent.iterdir()):
        _host.release_nspawn_dir()
    return True


def reset(
    name: str, hosts: Sequence[str] = (), progress: Callable[[str], None] = _quiet, *, origin: str | None = None
) -> LabStatus:
    """Give hosts (all by default) a fresh root, as if the machine had been installed anew, and boot them.

    Args:
        name: the lab.
        hosts: names of the hosts.
        progress: called with each step.
        origin: the snapshot that the roots lie on; a bare Debian without it.
    """
    _check_machine()
    _existing(name)
    with locked(lab_dir(name)):
        record = _existing(name)
        chosen = [record.host(host).name for host in dict.fromkeys(hosts)] or [host.name for host in record.hosts]
        layers = {host_name: _layers(record.host(host_name), origin, progress) for host_name in chosen}
        _network.ensure_bridge(record, lab_dir(record.name))
        for host_name in chosen:
            old = record.host(host_name)
            _host.discard(old)
            new = replace(old, uuid=str(uuid.uuid4()))
            record = record.with_host(new)
            save(record)
            _host.prepare(record, new, layers[host_name])
            _host.start(record, new)
        _ssh.write_client_files(record)
        for host_name in chosen:
            host = record.host(host_name)
            made = f"a clone of {origin}" if origin else "fresh"
            progress(f"{host.name}: {made} at {host.address}, booted in {_host.wait_up(host):.1f} s")
    return replace(status(name), changed=True)


def _layers(host: HostRecord, origin: str | None, progress: Callable[[str], None]) -> Sequence[Path]:
    if origin is None:
        return [base_tree(host.debian_release, progress)]
    snapshot = _snapshot.load_snapshot(origin)
    if snapshot.debian_release != host.debian_release:
        raise LabError(
            f"snapshot {origin} is of Debian {snapshot.debian_release}, {host.name} of lab {host.lab} is Debian "
            f"{host.debian_release}; take a snapshot of a host with that release"
        )
    return snapshot.layers


def snapshot(name: str, host: str, snapshot_name: str, progress: Callable[[str], None] = _quiet) -> LabStatus:
    """Power a host off, keep what it wrote as a snapshot, and boot it again as the first clone of that."""
    _check_machine()
    _existing(name)
    with locked(lab_dir(name)):
        record = _existing(name).host(host)
        progress(f"{host}: powering off")
        kept = _snapshot.keep(record, snapshot_name)
        progress(f"{host}: kept as {kept.name}")
    return reset(name, [host], progress, origin=snapshot_name)


def reboot(name: str, host: str) -> float:
    """Reboot a guest the orderly way, as its own `systemctl reboot` would; return the seconds that the boot took."""
    _check_root()
    record = _existing(name).host(host)
    run, leader = load_run(record), find(record.uuid).leader
    if run is None or leader is None or not _host.is_up(record):
        raise LabError(f"{host} of lab {name} does not run; run rackserve lab up --name {name}")
    send(leader, record.uuid, signal.SIGRTMIN + 5)  # systemd(1): starts reboot.target
    return _host.wait_up(record, run.boots + 1)


def status(name: str) -> LabStatus:
    """Return the state of a lab's hosts; without hosts when there is no such lab."""
    record = load(name)
    if record is None:
        return LabStatus(name, "", ())
    _check_root()
    return LabStatus(name, record.prefix, tuple(_host_status(record, host.name) for host in record.hosts))


def _host_status(record: LabRecord, name: str) -> HostStatus:
    host = record.host(name)
    found, run = find(host.uuid), load_run(host)
    return HostStatus(
        name=host.name,
        address=host.address,
        release=host.debian_release,
        state="stopped" if found.leader is None else "running",
        leader=found.leader,
        supervised=bool(found.supervisors),
        boot_s=run.boot_s if run else None,
        boots=run.boots if run else 0,
        packets_left_lab=_network.packets_left(host),
        has_default_route=_network.has_default_route(host),
    )


def ssh_argv(name: str, host: str, command: Sequence[str] = ()) -> list[str]:
    """Return the command line that runs a command (or a shell) as root on a host; see _ssh for its options."""
    return _ssh.argv(_existing(name).host(host), command)


def leak_control(name: str, host: str) -> int:
    """Verify that the counter counts: send a packet outside the lab on a cable to nowhere; return by how much it rose.

    A counter that was zero is reset to zero, so that this check does not change the measurement.
    """
    _check_root()
    return _network.provoke_leak(_existing(name).host(host))


def _existing(name: str) -> LabRecord:
    record = load(name)
    if record is None:
        raise LabError(f"there is no lab {name}; run rackserve lab up --name {name}")
    return record


def _check_root() -> None:
    if os.geteuid() != 0:
        raise LabError(f"the lab boots systemd hosts, which needs root; this is uid {os.geteuid()}: run it with sudo")


def _check_machine() -> None:
    _check_root()
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        packages = " ".join(sorted({_TOOLS[tool] for tool in missing}))
        raise LabError(f"the lab needs {', '.join(missing)}; run .ci/setup lab, or: apt-get install {packages}")
