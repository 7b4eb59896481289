"""The specification of a lab: its name, network and hosts. Pure data, checked once."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rackserve._apt import SUITES
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

EDGE_HOST: Final = "edge1"
SERVER_NAME: Final = "rackserve.lab"
_PREFIXES: Final = {"demo": "10.89.0", "molecule": "10.89.1"}
_HOSTS: Final = (("gpu1", 11), ("gpu2", 12), (EDGE_HOST, 21))
_LAB_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,10}")  # with "rsk-" before it, the bridge's name: 15 letters at most
_HOST_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True)
class HostSpec:
    """One host as asked for."""

    name: str
    address: str
    debian_release: int

    def __post_init__(self) -> None:
        if not _HOST_NAME.fullmatch(self.name):
            raise InputError(f"host name {self.name!r}: use lower-case letters, digits and dashes, 31 at most")
        if self.debian_release not in SUITES:
            known = ", ".join(map(str, SUITES))
            raise InputError(f"host {self.name}: Debian {self.debian_release} is not supported; set one of {known}")


@dataclass(frozen=True)
class LabSpec:
    """A lab as asked for. `prefix` is the first three numbers of its /24 network, such as 10.89.0."""

    name: str
    prefix: str
    hosts: tuple[HostSpec, ...]

    def __post_init__(self) -> None:
        check_lab_name(self.name)
        try:
            network = ipaddress.ip_network(f"{self.prefix}.0/24")
        except ValueError as wrong:
            raise InputError(f"prefix {self.prefix!r}: give three numbers such as 10.89.9") from wrong
        if not network.is_private:
            raise InputError(f"prefix {self.prefix}: {network} is not a private network; use one such as 10.89.9")


def check_lab_name(name: str) -> None:
    """Refuse a name that cannot name a bridge and a folder."""
    if not _LAB_NAME.fullmatch(name):
        raise InputError(f"lab name {name!r}: use lower-case letters, digits and dashes, 11 at most, a letter first")


def make_spec(name: str, prefix: str | None, releases: Mapping[str, int]) -> LabSpec:
    """Return the lab of the built-in hosts; hosts without a release get Debian 12."""
    chosen = prefix or _PREFIXES.get(name)
    if chosen is None:
        raise InputError(f"lab {name} has no network yet: give --prefix, for example --prefix 10.89.9")
    names = [host for host, _ in _HOSTS]
    for host in releases:
        if host not in names:
            raise InputError(f"there is no lab host {host!r}: the hosts are {', '.join(names)}")
    return LabSpec(
        name, chosen, tuple(HostSpec(host, f"{chosen}.{last}", releases.get(host, 12)) for host, last in _HOSTS)
    )


def parse_release(text: str) -> tuple[str, int]:
    """Read `edge1=13`."""
    host, _, release = text.partition("=")
    if not host or not release.isdecimal():
        raise InputError(f"release {text!r}: write HOST=NUMBER, for example edge1=13")
    return host, int(release)


def hardware_address(*words: str) -> str:
    """Return a locally administered MAC address that stays the same for the same words."""
    digest = hashlib.sha256("/".join(words).encode()).hexdigest()
    return "02:" + ":".join(digest[at : at + 2] for at in range(0, 10, 2))
