"""What is no file: packages, users, listening sockets, firewall tables, kernel and driver."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ._patterns import matches

if TYPE_CHECKING:
    from ._files import Entry
    from ._host import Host

_FORMAT = "${Package}\\t${Version}\\t${db:Status-Want}\\t${db:Status-Status}\\n"
_LISTENS = "0A"
_NVIDIA, _DISPLAY = "0x10de", "0x03"
_VERIFIED = re.compile(r"^(?P<what>\S+)\s+(?:\w )?(?P<path>/.*)$")


def read_packages(host: Host, patterns: list[str], files: list[str]) -> dict[str, Entry]:
    """Return the packages of a declaration: version, state, hold; and their altered files, by path.

    Packages that are named in full have their files compared with dpkg's digests; `files` are compared elsewhere.
    """
    if not patterns:
        return {}
    found: dict[str, Entry] = {}
    for line in host.run("dpkg-query", "--show", "--showformat", _FORMAT).splitlines():
        name, version, want, state = line.split("\t")
        if state != "not-installed" and any(fnmatchcase(name, one) for one in patterns):
            found[name] = {"version": version, "state": state, "hold": "held" if want == "hold" else "not held"}
    whole = sorted(name for name in found if name in patterns and found[name]["state"] == "installed")
    # It ends with 1 where it finds something.
    for line in host.run("dpkg", "--verify", *whole, codes=(0, 1)).splitlines() if whole else ():
        row = _VERIFIED.match(line)
        if row and not matches(row["path"], files):
            found[row["path"]] = {"file of a package": "missing" if row["what"] == "missing" else "altered"}
    return found


def read_users(host: Host, owned: dict[str, Any]) -> dict[str, Entry]:
    """Return the users and groups of a declaration."""
    groups = [row for row in host.rows("/etc/group") if len(row) > 3]  # noqa: PLR2004 - group(5)
    secrets = {row[0]: row[1] for row in host.rows("/etc/shadow")}
    found: dict[str, Entry] = {}
    for row in host.rows("/etc/passwd"):
        if row[0] in owned["users"] and len(row) > 6:  # noqa: PLR2004 - passwd(5)
            member = sorted(group[0] for group in groups if row[0] in group[3].split(","))
            found[f"user {row[0]}"] = {
                "uid": row[2],
                "gid": row[3],
                "home": row[5],
                "shell": row[6],
                "password": _password(secrets.get(row[0], "!")),
                "groups": ", ".join(member),
                "authorised keys": _keys(host, row[5]),
            }
    for row in groups:
        if row[0] in owned["groups"]:
            found[f"group {row[0]}"] = {"gid": row[2], "members": ", ".join(sorted(filter(None, row[3].split(","))))}
    return found


def _password(field: str) -> str:
    if field.startswith(("!", "*")):
        return "locked"
    return "set" if field else "empty"


def _keys(host: Host, home: str) -> str:
    texts = [host.text(f"{home}/.ssh/{name}") or "" for name in ("authorized_keys", "authorized_keys2")]
    keys = sorted(line.strip() for text in texts for line in text.splitlines() if line.strip())
    if not keys:
        return "none"
    return f"{len(keys)} ({hashlib.sha256(chr(10).join(keys).encode()).hexdigest()[:12]})"


# --- sockets


def read_sockets(host: Host, ports: list[int], units: list[str]) -> dict[str, Entry]:
    """Return the listening TCP sockets of the declared ports, and those of the declared units at any port."""
    if not ports and not units:
        return {}
    holders = _holders(host)
    processes: dict[str, set[str]] = {}
    owners: dict[str, set[str]] = {}
    for table in ("tcp", "tcp6"):
        for line in (host.text(f"/proc/net/{table}") or "").splitlines()[1:]:
            cells = line.split()
            if len(cells) < 10 or cells[3] != _LISTENS:  # noqa: PLR2004 - proc_net_tcp of the kernel's documentation
                continue
            address, port = _address(cells[1])
            process, unit = holders.get(cells[9], ("unknown", ""))
            if port in ports or any(fnmatchcase(unit, one) for one in units):
                processes.setdefault(f"{address}:{port}", set()).add(process)
                owners.setdefault(f"{address}:{port}", set()).add(unit)
    return {
        key: {"process": ", ".join(sorted(names)), "unit": ", ".join(sorted(filter(None, owners[key])))}
        for key, names in processes.items()
    }


def _address(cell: str) -> tuple[str, int]:
    digits, _, port = cell.partition(":")
    words = [digits[start : start + 8] for start in range(0, len(digits), 8)]
    raw = b"".join(bytes.fromhex(word)[::-1] for word in words)  # each word in the byte order of the machine
    address = ipaddress.ip_address(raw)
    return (f"[{address}]" if address.version == 6 else str(address)), int(port, 16)  # noqa: PLR2004 - IPv6


def _holders(host: Host) -> dict[str, tuple[str, str]]:
    """Return process and unit by a socket's inode; of several processes, the one of the lowest number."""
    found: dict[str, tuple[str, str]] = {}
    for pid in sorted((int(name) for name in host.names("/proc") if name.isdigit()), reverse=True):
        inodes = []
        with contextlib.suppress(OSError), os.scandir(host.at(f"/proc/{pid}/fd")) as listed:
            for one in listed:
                with contextlib.suppress(OSError):
                    target = os.readlink(one.path)
                    if target.startswith("socket:["):
                        inodes.append(target[8:-1])
        if inodes:
            name = (host.text(f"/proc/{pid}/comm") or "unknown").strip()
            group = (host.text(f"/proc/{pid}/cgroup") or "").strip().rpartition("\n")[2].rpartition(":")[2]
            units = [part for part in group.split("/") if re.search(r"\.(service|scope|socket)$", part)]
            found.update(dict.fromkeys(inodes, (name, units[-1] if units else "")))
    return found


# --- firewall, kernel, driver


def read_tables(host: Host, patterns: list[str]) -> dict[str, Entry]:
    """Return the nftables tables of a declaration, with their rules."""
    if not patterns:
        return {}
    found: dict[str, Entry] = {}
    text = host.run("nft", "--stateless", "list", "ruleset")
    for table in re.finditer(r"(?m)^table (?P<name>\S+ \S+) \{$(?P<rules>.*?)^\}", text, re.DOTALL):
        if any(fnmatchcase(table["name"], one) for one in patterns):
            found[table["name"]] = {"rules": "\n".join(line.strip() for line in table["rules"].split("\n") if line)}
    return found


def read_kernel(host: Host, facts: list[str], sysctls: list[str]) -> dict[str, Entry]:
    """Return the running kernel, the GPU driver with its GPUs, and settings of the kernel."""
    found: dict[str, Entry] = {}
    if "kernel" in facts:
        for name, path in (("release", "/proc/sys/kernel/osrelease"), ("command line", "/proc/cmdline")):
            found[f"kernel {name}"] = {"value": (host.text(path) or "").strip()}
    if "driver" in facts:
        version = host.text("/sys/module/nvidia/version")
        found["nvidia module"] = {"version": (version or "not loaded").strip()}
        for name in host.names("/sys/bus/pci/devices"):
            folder = f"/sys/bus/pci/devices/{name}"
            vendor, kind = (host.text(f"{folder}/{part}") or "" for part in ("vendor", "class"))
            if vendor.strip() == _NVIDIA and kind.startswith(_DISPLAY):
                found[f"GPU {name}"] = {"device": (host.text(f"{folder}/device") or "").strip()}
    for name in sysctls:
        value = host.text(f"/proc/sys/{name.replace('.', '/')}")
        found[f"sysctl {name}"] = {"value": " ".join((value or "absent").split())}
    return found
