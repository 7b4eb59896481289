"""One host's life: its root is made, it is started, waited for, stopped and removed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rackserve
from rackserve._files import write_text
from rackserve._process import run
from rackserve.errors import LabError

from ._network import make_namespace, remove_namespace
from ._processes import SUPERVISOR_MODULE, find, own_cgroup, send, stop
from ._spec import EDGE_HOST, SERVER_NAME
from ._ssh import ensure_key, make_key
from ._state import load_run, remove_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._state import HostRecord, LabRecord

NSPAWN_DIR: Final = Path("/run/systemd/nspawn")
_NSPAWN_SOURCE: Final = "rackserve-lab"
_BOOT_LIMIT_S: Final = 90.0
_POWER_OFF_LIMIT_S: Final = 150.0  # a unit may take systemd's 90 s to stop
_SETTLE_S: Final = 10.0
_STEP_S: Final = 0.05
_TAIL_LINES: Final = 10
_UNITS: Final = "etc/systemd/system/multi-user.target.wants"


def hosts_file(lab: LabRecord, own: str) -> str:
    """Return /etc/hosts of a host: every lab host by name, and the server's name for the edge."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", f"{lab.prefix}.1 controller"]
    for host in lab.hosts:
        names = [host.name, SERVER_NAME] if host.name == EDGE_HOST else [host.name]
        lines.append(f"{host.address} {' '.join(names)}")
    return f"# {own} of lab {lab.name}\n" + "\n".join(lines) + "\n"


def network_file(host: HostRecord) -> str:
    """Return what systemd-networkd sets on the guest's cable: an address, and no way out."""
    return (
        "[Match]\nName=host0\n\n[Network]\n"
        f"Address={host.address}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nLLMNR=no\nMulticastDNS=no\n"
    )


def is_up(host: HostRecord) -> bool:
    """Return whether a host runs under a supervisor, so that nothing needs to be done for it.

    A supervisor without a guest is between two states (a reboot, a killed nspawn) and is given time to reach one.
    """
    limit = time.monotonic() + _SETTLE_S
    while True:
        found = find(host.uuid)
        complete = bool(found.supervisors and found.containers) and found.leader is not None
        if complete or not found.supervisors or time.monotonic() > limit:
            return complete
        time.sleep(_STEP_S)


def is_prepared(host: HostRecord) -> bool:
    """Return whether a host's root is complete: an incomplete one is made again."""
    return (host.folder / "prepared").exists()


def prepared_layers(host: HostRecord) -> list[Path]:
    """Return the layers below a prepared host, top first: those it was made on, whatever today's recipe is."""
    return [Path(line) for line in (host.folder / "prepared").read_text().splitlines()]


def prepare(lab: LabRecord, host: HostRecord, layers: Sequence[Path]) -> None:
    """Give a host a fresh copy-on-write root over these layers, with its own name, address and keys in it."""
    discard(host)
    for name in ("upper", "work"):
        remove_tree(host.folder / name)
        (host.folder / name).mkdir(mode=0o755, parents=True)
    mount_root(host, layers)
    root = host.folder / "root"
    _write(root / "etc/hostname", f"{host.name}\n")
    _write(root / "etc/hosts", hosts_file(lab, host.name))
    _write(root / "etc/machine-id", host.uuid.replace("-", "") + "\n", 0o444)  # nspawn takes the guest's uuid from it
    _write(root / "etc/resolv.conf", "# the lab has no name server: names are in /etc/hosts\n")
    _write(root / "etc/systemd/network/50-rackserve-lab.network", network_file(host))
    _write(root / "root/.ssh/authorized_keys", ensure_key(lab.name), 0o600)
    (root / "root/.ssh").chmod(0o700)
    for old in (root / "etc/ssh").glob("ssh_host_*"):
        old.unlink()
    make_key(root / "etc/ssh/ssh_host_ed25519_key", host.name)
    (root / "var/lib/systemd/random-seed").unlink(missing_ok=True)  # of the host that a layer was kept from
    link = root / _UNITS / "systemd-networkd.service"
    link.unlink(missing_ok=True)
    link.symlink_to("/lib/systemd/system/systemd-networkd.service")
    write_text(host.folder / "prepared", "".join(f"{layer}\n" for layer in layers))


def discard(host: HostRecord) -> None:
    """Stop a host and mark its root as not made, so that the next command makes it again."""
    halt(host)
    for name in ("prepared", "run.json"):
        (host.folder / name).unlink(missing_ok=True)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link in the tree must not lead the write out of the root
    path.write_text(text)
    path.chmod(mode)


def mount_root(host: HostRecord, below: Sequence[Path]) -> None:
    """Mount a host's overlay; nothing to do if it is mounted."""
    root = host.folder / "root"
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    if root.is_mount():
        return
    for layer in below:
        if not layer.is_dir():
            raise LabError(f"the layer {layer} of {host.machine} is gone; run rackserve lab reset {host.name}")
    lower = ":".join(map(str, below))
    layers = f"lowerdir={lower},upperdir={host.folder / 'upper'},workdir={host.folder / 'work'}"
    try:
        words = ["mount", "-t", "overlay", host.machine, "-o", layers, str(root)]
        run(words, error=LabError, what=f"mount the root of {host.machine}")
    except LabError as refused:
        raise LabError(
            f"{refused}\nthe lab needs overlayfs, with {host.folder} on ext4 or xfs (not itself an overlay or network "
            "file system); set XDG_STATE_HOME to a folder on such a disk"
        ) from refused


def ensure_nspawn_dir() -> None:
    """Keep nspawn's runtime folder on a tmpfs: nspawn refuses to end a guest when it is on a disk file system."""
    NSPAWN_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    kind = run(["stat", "--file-system", "--format=%T", NSPAWN_DIR], error=LabError, what="look at /run/systemd/nspawn")
    if kind.strip() not in ("tmpfs", "ramfs"):
        words = ["mount", "-t", "tmpfs", "-o", "mode=0755", _NSPAWN_SOURCE, str(NSPAWN_DIR)]
        run(words, error=LabError, what="mount a tmpfs for nspawn")


def release_nspawn_dir() -> None:
    """Unmount that tmpfs when it is ours and no guest of anybody is left in it."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    ours = f"{_NSPAWN_SOURCE} {NSPAWN_DIR} "
    if any(line.startswith(ours) for line in mounts) and not any((NSPAWN_DIR / "propagate").glob("*")):
        with contextlib.suppress(LabError):
            run(["umount", NSPAWN_DIR], error=LabError, what="unmount nspawn's tmpfs")


def start(lab: LabRecord, host: HostRecord) -> None:
    """Start a prepared host, detached from this process and its terminal; return at once."""
    halt(host)
    ensure_nspawn_dir()
    mount_root(host, prepared_layers(host))
    make_namespace(lab, host)
    (host.folder / "run.json").unlink(missing_ok=True)
    words = [sys.executable, "-m", SUPERVISOR_MODULE, host.uuid, lab.name, host.name]
    if own_cgroup(host.uuid) is None:
        scope = ("systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--slice=machine.slice")
        words = [*scope, f"--unit=rackserve-lab-{host.uuid}", *words]
    source = Path(rackserve.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{source}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")}
    with (host.folder / "supervisor.log").open("ab") as out:  # not _process.run: its pipes would outlive this command
        subprocess.run(
            ["setsid", "--fork", *words],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=True,
        )


def wait_up(host: HostRecord, boots: int = 1) -> float:
    """Wait until a host greets by SSH in its boot of that number; return the seconds that boot took."""
    limit = time.monotonic() + _BOOT_LIMIT_S
    while time.monotonic() < limit:
        record = load_run(host)
        if record and record.boots >= boots and record.boot_s is not None:
            return record.boot_s
        if record and record.ended is not None:
            raise LabError(f"{host.machine} ended with {record.ended} while it booted\n{_tail(host)}")
        time.sleep(_STEP_S)
    raise LabError(f"{host.machine} did not answer by SSH within {_BOOT_LIMIT_S:.0f} s\n{_tail(host)}")


def _tail(host: HostRecord) -> str:
    lines = []
    for name in ("supervisor.log", "console.log"):
        path = host.folder / name
        if path.exists():
            lines += [f"last lines of {path}:", *path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]]
    return "\n".join(lines)


def power_off(host: HostRecord) -> None:
    """Have a running host power itself off, as its own `systemctl poweroff` would: its services end what they write."""
    limit = time.monotonic() + _POWER_OFF_LIMIT_S
    leader = find(host.uuid).leader
    if leader is not None:
        send(leader, host.uuid, signal.SIGRTMIN + 4)  # systemd(1): starts poweroff.target
    while find(host.uuid).any:
        if time.monotonic() > limit:
            raise LabError(f"{host.machine} did not power off within {_POWER_OFF_LIMIT_S:.0f} s\n{_tail(host)}")
        time.sleep(_STEP_S)


def halt(host: HostRecord) -> None:
    """Stop a host at once and remove its resources outside its folder: mount, cable, namespace, control group."""
    stop(host.uuid)
    root = host.folder / "root"
    while root.is_mount():
        run(["umount", "--lazy", root], error=LabError, what=f"unmount the root of {host.machine}")
    remove_namespace(host)
    with contextlib.suppress(OSError):
        (NSPAWN_DIR / "propagate" / host.machine).rmdir()
    group = own_cgroup(host.uuid)
    if group is not None and group.is_dir():
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
