"""The running nginx of a host: its processes and their connections. Standard library only, Python 3.9 and newer."""

from __future__ import annotations

import contextlib
import glob
import ipaddress
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_OPEN = ("01", "02")  # TCP_ESTABLISHED and TCP_SYN_SENT of the kernel's include/net/tcp_states.h

LIBRARIES = ("/usr/", "/lib", "/opt/")
_DELETED = " (deleted)"
# dpkg keeps a replaced file under this name until it has unpacked the package.
_OF_DPKG = ".dpkg-tmp"


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as source:
        return source.read()
    return ""


def master_of(pid_file: str) -> int:
    """Return the process ID of the running nginx, 0 where none runs."""
    text = _read(pid_file).strip()
    return int(text) if text.isdigit() and _read(f"/proc/{text}/comm").strip() == "nginx" else 0


def serving_workers(master: int) -> set[int]:
    """Return the processes of a master that take new connections: not those that end after a reload."""
    children = {int(pid) for pid in _read(f"/proc/{master}/task/{master}/children").split()}
    return {pid for pid in children if _read(f"/proc/{pid}/cmdline").rstrip("\0 ") == "nginx: worker process"}


def predecessor_of(master: int) -> int:
    """Return the master whose place this one takes and that has not ended yet, 0 where there is none."""
    fields = _read(f"/proc/{master}/stat").rpartition(")")[2].split()
    parent = int(fields[1]) if fields else 0
    return parent if _read(f"/proc/{parent}/cmdline").startswith("nginx: master process") else 0


def is_alive(pid: int) -> bool:
    """Return whether a process has not ended."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])


def replaced_files(master: int, program: str) -> list[str]:
    """Return the program and the libraries that the running nginx uses as they were before they were replaced."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        if not os.path.samestat(os.stat(f"/proc/{master}/exe"), os.stat(program)):
            found.add(program)
    for pid in (master, *serving_workers(master)):
        found |= deleted_libraries(_read(f"/proc/{pid}/maps"))
    return sorted(found)


def deleted_libraries(maps: str) -> set[str]:
    """Return the code that a process has mapped and whose file was replaced or removed, from its `/proc/PID/maps`.

    Shared memory and the code that programs make themselves is mapped as deleted too; its path is elsewhere.
    """
    rows = (line.split(maxsplit=5) for line in maps.splitlines() if line.endswith(_DELETED))
    found = {row[5][: -len(_DELETED)] for row in rows if "x" in row[1] and row[5].startswith(LIBRARIES)}
    return {name.removesuffix(_OF_DPKG) for name in found}


def places_of(address: str) -> set[tuple[str, int]]:
    """Return the IP addresses, as text, and the port that an address with a port leads to."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        return {(str(ipaddress.ip_address(str(entry[4][0]))), int(port)) for entry in found}
    return set()


def open_connections(addresses: Iterable[str]) -> int:
    """Return how many connections the host's nginx, workers from before a reload too, has to some addresses.

    Other programs of the host connect to engines too: Prometheus reads their metrics.
    """
    wanted = set().union(*(places_of(address) for address in addresses))
    inodes = {
        row[9]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for row in map(str.split, _read(table).splitlines()[1:])
        if row[3] in _OPEN and _place(row[2]) in wanted
    }
    return len(inodes & _sockets_of_nginx()) if inodes else 0


def _place(text: str) -> tuple[str, int]:
    """Read an address as the kernel writes it: 32-bit words in the order of the host's bytes, and the port."""
    words, _, port = text.partition(":")
    raw = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int(port, 16)


def _sockets_of_nginx() -> set[str]:
    found: set[str] = set()
    for folder in glob.glob("/proc/[0-9]*"):
        if _read(f"{folder}/comm").strip() == "nginx":
            for handle in glob.glob(f"{folder}/fd/*"):
                with contextlib.suppress(OSError):
                    target = os.readlink(handle)
                    if target.startswith("socket:["):
                        found.add(target[len("socket:[") : -1])
    return found
