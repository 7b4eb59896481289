"""The lab's network: a switch on the controller without forwarding, a namespace per host without a route out.

The namespace is made before the guest boots and outlives its reboots, and so does the table that counts and drops
every packet with an address outside the lab: no moment of a guest's life is uncounted.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rackserve._process import run
from rackserve.errors import LabError

from ._spec import hardware_address

if TYPE_CHECKING:
    from ._state import HostRecord, LabRecord

TABLE: Final = "rackserve_lab"
_LEAK_ADDRESS: Final = "10.255.255.1/30"
_LEAK_TARGET: Final = "10.255.255.2"
_SEND: Final = (
    "import socket,sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'leak', (sys.argv[1], 9))"  # discard
)


def ruleset(network: str) -> str:
    """Return the nftables table of a host."""
    return f"""table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  counter left_lab {{ }}
  chain output {{
    type filter hook output priority 300; policy accept;
    oif lo accept
    ip daddr {network} accept
    counter name left_lab drop
  }}
}}
"""


def conflict(addresses: list[dict[str, Any]], network: str, own: str) -> str | None:
    """Return "interface address" of another interface inside a network, from what `ip -json -4 address` prints."""
    lab = ipaddress.ip_network(network)
    for interface in addresses:
        for entry in interface.get("addr_info", []):
            if not entry.get("local") or interface["ifname"] == own:
                continue
            if ipaddress.ip_network(f"{entry['local']}/{entry['prefixlen']}", strict=False).overlaps(lab):
                return f"{interface['ifname']} {entry['local']}/{entry['prefixlen']}"
    return None


def network_of(prefix: str) -> str:
    """Return a lab's network."""
    return f"{prefix}.0/24"


def ensure_bridge(lab: LabRecord, folder: Path) -> None:
    """Make the switch, with the controller as .1 on it; its alias names the folder of the lab that it belongs to.

    Raises:
        LabError: the network is in use, or the switch belongs to a lab of this name in another folder, whose
            network would go with ours (names of interfaces are the machine's, folders of labs a user's).
    """
    network = network_of(lab.prefix)
    taken = conflict(json.loads(_ip("-json", "-4", "address")), network, lab.bridge)
    if taken:
        raise LabError(f"network {network} of lab {lab.name} is in use by {taken}; give another --prefix")
    if not _exists(lab.bridge):
        _ip("link", "add", lab.bridge, "address", hardware_address(lab.name), "type", "bridge")
    owner = (Path("/sys/class/net") / lab.bridge / "ifalias").read_text().strip()
    if owner not in ("", str(folder)) and Path(owner).exists():
        raise LabError(
            f"a lab {lab.name} runs already, with its state in {owner}, not in {folder}; give another --name, or "
            f"set XDG_STATE_HOME as it was when that lab was put up"
        )
    _ip("link", "set", lab.bridge, "alias", str(folder))
    _set_kernel(f"ipv4/conf/{lab.bridge}/forwarding", "0")
    _set_kernel(f"ipv6/conf/{lab.bridge}/disable_ipv6", "1")
    _ip("address", "replace", f"{lab.prefix}.1/24", "dev", lab.bridge)
    _ip("link", "set", lab.bridge, "up")


def remove_bridge(lab: LabRecord) -> None:
    """Remove the switch, if it is there."""
    if _exists(lab.bridge):
        _ip("link", "delete", lab.bridge)


def make_namespace(lab: LabRecord, host: HostRecord) -> None:
    """Make a host's namespace and cable again; the guest configures its end (host0) itself."""
    remove_namespace(host)
    _ip("netns", "add", host.netns)
    inside(host, ["nft", "-f", "-"], stdin=ruleset(network_of(lab.prefix)), what="count what leaves the lab")
    peer = ("peer", "name", "host0", "address", hardware_address(host.lab, host.name), "netns", host.netns)
    _ip("link", "add", host.veth, "type", "veth", *peer)
    _set_kernel(f"ipv6/conf/{host.veth}/disable_ipv6", "1")
    _ip("link", "set", host.veth, "master", lab.bridge, "up")


def remove_namespace(host: HostRecord) -> None:
    """Remove a host's cable and namespace, if they are there."""
    if _exists(host.veth):
        _ip("link", "delete", host.veth)
    if netns_path(host).exists():
        _ip("netns", "delete", host.netns)


def netns_path(host: HostRecord) -> Path:
    """Return the file by which a host's namespace is entered."""
    return Path("/run/netns") / host.netns


def packets_left(host: HostRecord) -> int | None:
    """Return how many packets tried to leave the lab since the host was put up; None when nothing counts them."""
    try:
        text = inside(
            host, ["nft", "-j", "list", "counter", "inet", TABLE, "left_lab"], what="read the counter of packets"
        )
    except LabError:
        return None  # no namespace, or the guest flushed its rules: not the same as zero
    return parse_counter(text)


def parse_counter(text: str) -> int | None:
    """Read the packets of the counter from what `nft -j` prints."""
    for entry in json.loads(text)["nftables"]:
        if "counter" in entry:
            return int(entry["counter"]["packets"])
    return None


def has_default_route(host: HostRecord) -> bool | None:
    """Return whether a host has a default route; None when it has no namespace."""
    if not netns_path(host).exists():
        return None
    return any(
        inside(host, ["ip", family, "route", "show", "default"], what="read the routes").strip()
        for family in ("-4", "-6")
    )


def provoke_leak(host: HostRecord) -> int:
    """Send one packet to an address outside the lab, over a cable that ends in the namespace; return the counter.

    The cable gives the packet a route, else the kernel would refuse it before it is counted; it leads nowhere.
    """
    before = packets_left(host)
    steps = (
        ["ip", "link", "add", "rskleak0", "type", "veth", "peer", "name", "rskleak1"],
        ["sh", "-c", "for end in rskleak0 rskleak1; do echo 1 >/proc/sys/net/ipv6/conf/$end/disable_ipv6; done"],
        ["ip", "address", "add", _LEAK_ADDRESS, "dev", "rskleak0"],
        ["ip", "link", "set", "rskleak1", "up"],
        ["ip", "link", "set", "rskleak0", "up"],
    )
    try:
        for step in steps:
            inside(host, step, what="make the cable of the leak control")
        # the table answers a dropped packet with "operation not permitted": the sender's failure is the success here
        inside(host, ["sh", "-c", 'python3 -c "$1" "$2" || :', "sh", _SEND, _LEAK_TARGET], what="send outside the lab")
        after = packets_left(host)
    finally:
        inside(host, ["sh", "-c", "ip link delete rskleak0 2>/dev/null || :"], what="remove the leak control's cable")
    if before == 0:
        inside(host, ["nft", "reset", "counter", "inet", TABLE, "left_lab"], what="put the counter back to zero")
    if after is None or before is None:
        raise LabError(f"nothing counts what leaves {host.name}: its table {TABLE} is gone; run rackserve lab reset")
    return after - before


def inside(host: HostRecord, argv: list[str], *, what: str, stdin: str | None = None) -> str:
    """Run one of the controller's programs in a host's network namespace."""
    words = ["nsenter", f"--net={netns_path(host)}", *argv]
    return run(words, error=LabError, what=f"{what} of {host.machine}", stdin=stdin, timeout_s=30)


def _ip(*words: str) -> str:
    return run(["ip", *words], error=LabError, what=f"set up the lab's network (ip {' '.join(words)})", timeout_s=30)


def _exists(interface: str) -> bool:
    return (Path("/sys/class/net") / interface).exists()


def _set_kernel(key: str, value: str) -> None:
    path = Path("/proc/sys/net") / key
    if path.exists():
        path.write_text(value)
