"""The lab's SSH key, the hosts' keys, and the command line that uses both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve._files import write_text
from rackserve._process import run
from rackserve.errors import LabError

from ._state import lab_dir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ._state import HostRecord, LabRecord


def ensure_key(lab: str) -> str:
    """Make the lab's key pair if it is missing; return the public key."""
    private = lab_dir(lab) / "ssh" / "id_ed25519"
    public = private.with_suffix(".pub")
    if not public.exists():
        private.parent.mkdir(mode=0o700, exist_ok=True)
        private.unlink(missing_ok=True)
        make_key(private, f"rackserve lab {lab}")
    return public.read_text()


def make_key(private: Path, comment: str) -> None:
    """Write an ed25519 key pair without a passphrase."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(private)]
    run(words, error=LabError, what="make an SSH key")


def known_hosts_line(host: HostRecord, public_key: str) -> str:
    """Return the line of known_hosts by which a host is recognised, under its address and its name."""
    kind, key = public_key.split()[:2]
    return f"{host.address},{host.name} {kind} {key}\n"


def config_text(lab: LabRecord) -> str:
    """Return an ssh configuration: root on every host by name, host keys checked against the lab's own list."""
    folder = lab_dir(lab.name) / "ssh"
    hosts = "".join(f"Host {host.name}\n  HostName {host.address}\n" for host in lab.hosts)
    options = {
        "User": "root",
        "IdentityFile": folder / "id_ed25519",
        "UserKnownHostsFile": folder / "known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "PasswordAuthentication": "no",
        "LogLevel": "ERROR",
    }
    return f"{hosts}Host *\n" + "".join(f"  {key} {value}\n" for key, value in options.items())


def write_client_files(lab: LabRecord) -> None:
    """Write the ssh configuration, and list the keys of all hosts that were prepared."""
    lines = []
    for host in lab.hosts:
        public = host.folder / "upper" / "etc" / "ssh" / "ssh_host_ed25519_key.pub"
        if public.exists():
            lines.append(known_hosts_line(host, public.read_text()))
    folder = lab_dir(lab.name) / "ssh"
    write_text(folder / "known_hosts", "".join(lines))
    write_text(folder / "config", config_text(lab))


def argv(host: HostRecord, command: Sequence[str]) -> list[str]:
    """Return the ssh command line for root on a host."""
    return ["ssh", "-F", str(lab_dir(host.lab) / "ssh" / "config"), host.name, *command]
