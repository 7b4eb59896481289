"""A host under a folder: its files, and programs that answer what it is set to."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path  # noqa: TC003 - dataclass

from rackserve.programs.host_state import Host

UNITS = "/etc/systemd/system"
OWNED = {
    "edge": {
        "files": [
            "/etc/edge/edge.conf",
            "/etc/edge/tls/*",
            "/etc/edge/code/**",
            "/etc/edge/current",
            f"{UNITS}/rackserve-edge.service",
            f"{UNITS}/nginx.service.d/rackserve.conf",
        ],
        "folders": ["/etc/edge"],
        "trees": ["/srv/models"],
        "changing": ["/etc/edge/drained", "/var/lib/edge"],
        "units": ["nginx.service", "rackserve-edge.*", "engine@*"],
        "running": ["nginx.service", "rackserve-edge.timer"],
        "packages": ["nginx", "nvidia-*"],
        "users": ["vllm"],
        "groups": ["vllm"],
        "ports": [443],
        "tables": {"inet edge": "nginx.service", "inet proxy_*": "proxy@*.socket"},
        "facts": ["kernel", "driver"],
        "sysctls": ["vm.swappiness"],
    }
}
FILES = {
    "/etc/edge/edge.conf": "listen 443;\n",
    "/etc/edge/tls/key": "secret-of-the-edge\n",
    "/etc/edge/code/a/b.lua": "return 1\n",
    "/etc/edge/drained/gpu1:a": "",
    "/var/lib/edge/state": "1",
    f"{UNITS}/rackserve-edge.service": "[Service]\nExecStart=/bin/true\n",
    f"{UNITS}/nginx.service.d/rackserve.conf": "[Service]\nRestart=always\n",
    "/usr/lib/systemd/system/nginx.service": "[Service]\nExecStart=/usr/sbin/nginx\n",
    "/srv/models/blobs/weights": "w" * 4096,
    "/srv/models/snapshots/1/config.json": "{}",
    "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\nvllm:x:990:990::/var/lib/vllm:/usr/sbin/nologin\n",
    "/etc/shadow": "root:!:1::::::\nvllm:!:1::::::\n",
    "/etc/group": "root:x:0:\nvllm:x:990:\nsudo:x:27:\n",
    "/proc/net/tcp": (
        "  sl  local_address rem_address   st tx rx tr tm retrnsmt   uid  timeout inode\n"
        "   0: 00000000:01BB 00000000:0000 0A 0:0 0:0 0 0 0 501 1\n"
        "   1: 0100007F:0016 00000000:0000 0A 0:0 0:0 0 0 0 777 1\n"
    ),
    "/proc/70/comm": "nginx\n",
    "/proc/70/cgroup": "0::/system.slice/nginx.service\n",
    "/proc/sys/kernel/osrelease": "6.1.0-56-amd64\n",
    "/proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz ro quiet\n",
    "/proc/sys/vm/swappiness": "60\n",
    "/sys/module/nvidia/version": "580.95.05\n",
    "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "/sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n",
    "/sys/bus/pci/devices/0000:01:00.0/device": "0x2335\n",
}
TABLE = (
    "table inet edge {\n\tchain output {\n\t\ttype filter hook output priority filter; policy accept;\n"
    "\t\tmeta skuid >= 1000 reject\n\t}\n}\n"
)
PROXY = "table inet proxy_a {\n\tchain output {\n\t\ttcp dport 8000 reject\n\t}\n}\n"


def unit(name: str, **changed: str) -> dict[str, str]:
    """Return the loaded properties of a unit."""
    path = f"{UNITS}/{name}" if name.startswith("rackserve") else f"/usr/lib/systemd/system/{name}"
    return {
        "Id": name,
        "LoadState": "loaded",
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "FragmentPath": path,
        "NeedDaemonReload": "no",
        "ExecStart": "{ path=/bin/true ; argv[]=/bin/true ; start_time=[n/a] ; pid=4 ; status=0/0 }",
        **changed,
    }


@dataclass
class FakeHost:
    """The host; what is set here, its programs tell."""

    root: Path
    units: dict[str, dict[str, str]] = field(default_factory=dict)
    packages: dict[str, tuple[str, str]] = field(default_factory=dict)
    altered: str = ""
    tables: str = TABLE + PROXY
    failing: set[str] = field(default_factory=set)

    def write(self, path: str, text: str) -> Path:
        """Write a file, and return where it lies."""
        where = self.at(path)
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text, encoding="utf-8")
        return where

    def at(self, path: str) -> Path:
        """Return where a path of the host lies."""
        return self.root / path.lstrip("/")

    def run(self, argv: tuple[str, ...]) -> tuple[int, str]:
        """Answer a program."""
        if argv[0] in self.failing:
            return -1, f"{argv[0]}: No such file or directory"
        if argv[:2] == ("systemctl", "show"):
            return 0, "\n\n".join(self._shown(name) for name in argv[4:])
        if argv[0] == "systemctl":
            named = [name for name in self.units if any(fnmatchcase(name, one) for one in argv[6:])]
            if argv[1] == "list-unit-files":
                named = [name for name in named if self.units[name].get("UnitFileState")]
                return 0, "".join(f"{name} {self.units[name]['UnitFileState']} enabled\n" for name in named)
            return 0, "".join(f"{name} loaded active running x\n" for name in named if "@." not in name)
        rows = (f"{name}\t{version}\t{want}\tinstalled\n" for name, (version, want) in self.packages.items())
        answers = {
            "dpkg-query": (0, "".join(rows)),
            "dpkg": (1 if self.altered else 0, self.altered),
            "nft": (0, self.tables),
        }
        return answers.get(argv[0], (0, ""))

    def _shown(self, name: str) -> str:
        properties = self.units.get(name, {"Id": name, "LoadState": "not-found"})
        return "\n".join(f"{key}={value}" for key, value in properties.items())

    def host(self) -> Host:
        """Return the host as the program sees it, with nothing remembered."""
        return Host(str(self.root), self.run)


def make_host(root: Path) -> FakeHost:
    """Return a host on which everything is in order."""
    found = FakeHost(
        root,
        units={
            "nginx.service": unit("nginx.service", DropInPaths=f"{UNITS}/nginx.service.d/rackserve.conf"),
            "rackserve-edge.service": unit("rackserve-edge.service", ActiveState="inactive", MemoryMax="1000000"),
            "rackserve-edge.timer": unit("rackserve-edge.timer"),
            "engine@.service": {"UnitFileState": "disabled"},
            "engine@a.service": unit("engine@a.service", Environment='A=1 "B=2 3"'),
            "proxy@a.socket": unit("proxy@a.socket"),
        },
        packages={"nginx": ("1.22.1-9", "install"), "nvidia-driver": ("580.95", "hold"), "vim": ("9", "install")},
    )
    for path, text in FILES.items():
        found.write(path, text)
    found.at("/etc/edge/tls/key").chmod(0o600)
    found.at("/etc/edge/current").symlink_to("code/a")
    found.at("/proc/70/fd").mkdir()
    for number, target in (("3", "socket:[501]"), ("4", "/dev/null")):
        found.at(f"/proc/70/fd/{number}").symlink_to(target)
    return found
