"""What somebody may do to a host, for tests of drift: each seed is one difference, and what is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from testing.fake_host import PROXY, TABLE, UNITS, FakeHost, unit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def both(*steps: Callable[[FakeHost], object]) -> Callable[[FakeHost], None]:
    """Return all steps as one."""

    def run(host: FakeHost) -> None:
        for step in steps:
            step(host)

    return run


def touch_back(path: Path, change: Callable[[Path], object]) -> None:
    """Change a file and give it the times that it had."""
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path, text: str) -> None:
    path.with_name("draft").write_text(text)
    path.with_name("draft").rename(path)


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def listens(made: FakeHost, row: str, pid: str, comm: str, unit_name: str) -> None:
    table = made.at("/proc/net/tcp")
    inode = row.split()[9]
    table.write_text(table.read_text() + row + "\n")
    made.write(f"/proc/{pid}/comm", f"{comm}\n")
    made.write(f"/proc/{pid}/cgroup", f"0::/system.slice/{unit_name}\n")
    made.at(f"/proc/{pid}/fd").mkdir()
    made.at(f"/proc/{pid}/fd/3").symlink_to(f"socket:[{inode}]")


def set_unit(made: FakeHost, name: str, **changed: str) -> None:
    made.units[name] = {**made.units[name], **changed}


SAME_SIZE = "listen 444;\n"
# Name, what is done to the host, kind and attribute of the one difference, words of its sentence.
SEEDS: list[tuple[str, Callable[[FakeHost], object], str, str, str]] = [
    (
        "content",
        lambda h: h.write("/etc/edge/edge.conf", "listen 80;\n"),
        "file",
        "content",
        "the content of /etc/edge/edge.conf differs",
    ),
    (
        "content of the same size and time",
        lambda h: touch_back(h.at("/etc/edge/edge.conf"), lambda path: path.write_text(SAME_SIZE)),
        "file",
        "content",
        "the content of /etc/edge/edge.conf differs",
    ),
    (
        "mode",
        lambda h: h.at("/etc/edge/edge.conf").chmod(0o666),
        "file",
        "mode",
        "mode of /etc/edge/edge.conf is 0666, recorded 0644",
    ),
    ("setuid", lambda h: h.at("/etc/edge/code/a/b.lua").chmod(0o4755), "file", "mode", "is 4755"),
    ("mode of a folder above", lambda h: h.at("/srv").chmod(0o777), "file", "mode", "mode of /srv is 0777"),
    ("file gone", lambda h: h.at("/etc/edge/edge.conf").unlink(), "file", "presence", "/etc/edge/edge.conf is gone"),
    (
        "file new",
        lambda h: h.write("/etc/edge/tls/other", "x"),
        "file",
        "presence",
        "/etc/edge/tls/other (file) is new",
    ),
    (
        "link elsewhere",
        lambda h: relink(h.at("/etc/edge/current"), "code/b"),
        "file",
        "target",
        "is code/b, recorded code/a",
    ),
    (
        "file is a link",
        lambda h: relink(h.at("/etc/edge/edge.conf"), "/mnt/x"),
        "file",
        "type",
        "is a link to /mnt/x, recorded a file",
    ),
    (
        "folder is a link",
        both(
            lambda h: h.at("/etc/edge/code/a").rename(h.at("/other")),
            lambda h: h.at("/etc/edge/code/a").symlink_to("/other"),
        ),
        "file",
        "type",
        "/etc/edge/code/a is a link to /other, recorded a folder",
    ),
    (
        "nobody's file",
        lambda h: h.write("/etc/edge/left.bak", "x"),
        "unowned",
        "presence",
        "/etc/edge/left.bak (file of",
    ),
    (
        "nobody's folder",
        lambda h: h.write("/etc/edge/.hidden/a/b", "x"),
        "unowned",
        "presence",
        "/etc/edge/.hidden (folder of",
    ),
    (
        "weights of another size",
        lambda h: h.write("/srv/models/blobs/weights", "w"),
        "file",
        "size",
        "is 1 bytes, recorded 4096 bytes",
    ),
    (
        "weights replaced",
        lambda h: touch_back(h.at("/srv/models/blobs/weights"), lambda p: replace(p, "v" * 4096)),
        "file",
        "inode",
        "was replaced by another file of the same size",
    ),
    (
        "weights altered, size and time as before",
        lambda h: touch_back(h.at("/srv/models/blobs/weights"), lambda path: path.write_text("v" * 4096)),
        "file",
        "inode's time",
        "has the size and the time that it had before",
    ),
    ("weights gone", lambda h: h.at("/srv/models/blobs/weights").unlink(), "file", "presence", "weights is gone"),
    (
        "new in a tree",
        lambda h: h.write("/srv/models/new/a/b", "x"),
        "file",
        "presence",
        "/srv/models/new is new in /srv/models",
    ),
    ("mode in a tree", lambda h: h.at("/srv/models/blobs/weights").chmod(0o600), "file", "mode", "is 0600"),
    (
        "unit file",
        lambda h: h.write(f"{UNITS}/rackserve-edge.service", "[Service]\nExecStart=/bin/sh\n"),
        "file",
        "content",
        "rackserve-edge.service differs",
    ),
    (
        "unit disabled",
        lambda h: set_unit(h, "nginx.service", UnitFileState="disabled"),
        "unit",
        "UnitFileState",
        "nginx.service is disabled, recorded enabled",
    ),
    (
        "unit stopped",
        lambda h: set_unit(h, "rackserve-edge.timer", ActiveState="inactive"),
        "unit",
        "ActiveState",
        "rackserve-edge.timer is inactive, recorded active",
    ),
    (
        "not reloaded",
        lambda h: set_unit(h, "nginx.service", NeedDaemonReload="yes"),
        "unit",
        "NeedDaemonReload",
        "systemd has not loaded",
    ),
    (
        "loaded property",
        lambda h: set_unit(h, "rackserve-edge.service", MemoryMax="2000000"),
        "unit",
        "MemoryMax",
        "MemoryMax of rackserve-edge.service is 2000000, recorded 1000000",
    ),
    (
        "environment",
        lambda h: set_unit(h, "engine@a.service", Environment="A=1 KEY=secret"),
        "unit",
        "Environment",
        "the environment of engine@a.service differs: B, KEY",
    ),
    (
        "drop-in in /run",
        both(
            lambda h: h.write("/run/systemd/system/nginx.service.d/x.conf", "[Service]\nUser=root\n"),
            lambda h: set_unit(
                h, "nginx.service", DropInPaths="/run/systemd/system/nginx.service.d/x.conf", User="root"
            ),
        ),
        "unit",
        "presence",
        "/run/systemd/system/nginx.service.d/x.conf is a drop-in that is not rackserve's",
    ),
    (
        "drop-in of set-property",
        lambda h: h.write("/etc/systemd/system.control/nginx.service.d/50-MemoryMax.conf", "x"),
        "unit",
        "presence",
        "/etc/systemd/system.control/",
    ),
    (
        "drop-in that is not loaded",
        lambda h: h.write(f"{UNITS}/nginx.service.d/zz.conf", "[Service]\n"),
        "unit",
        "presence",
        "zz.conf is a drop-in",
    ),
    (
        "drop-in of a template",
        lambda h: h.write("/run/systemd/system/engine@.service.d/x.conf", "x"),
        "unit",
        "presence",
        "engine@.service.d/x.conf is a drop-in",
    ),
    (
        "drop-in of a prefix",
        lambda h: h.write(f"{UNITS}/rackserve-.service.d/x.conf", "x"),
        "unit",
        "presence",
        "rackserve-.service.d/x.conf is a drop-in",
    ),
    (
        "masked at runtime",
        both(
            lambda h: h.at("/run/systemd/system").mkdir(parents=True),
            lambda h: h.at("/run/systemd/system/nginx.service").symlink_to("/dev/null"),
            lambda h: set_unit(h, "nginx.service", LoadState="masked", UnitFileState="masked-runtime"),
        ),
        "unit",
        "presence",
        "/run/systemd/system/nginx.service masks nginx.service",
    ),
    (
        "unit of a package altered",
        lambda h: h.write("/usr/lib/systemd/system/nginx.service", "[Service]\n"),
        "unit",
        "content",
        "content of /usr/lib/systemd/system/nginx.service differs",
    ),
    (
        "another unit of ours",
        lambda h: h.units.update({"rackserve-edge.path": unit("rackserve-edge.path")}),
        "unit",
        "presence",
        "the unit rackserve-edge.path is new (enabled)",
    ),
    (
        "another instance",
        lambda h: h.units.update({"engine@b.service": unit("engine@b.service")}),
        "unit",
        "presence",
        "engine@b.service is new",
    ),
    (
        "unit gone",
        lambda h: h.units.pop("rackserve-edge.timer"),
        "unit",
        "presence",
        "systemd no longer knows rackserve-edge.timer",
    ),
    (
        "package of another version",
        lambda h: h.packages.update({"nginx": ("1.23", "install")}),
        "package",
        "version",
        "version of package nginx is 1.23, recorded 1.22.1-9",
    ),
    (
        "hold removed",
        lambda h: h.packages.update({"nvidia-driver": ("580.95", "install")}),
        "package",
        "hold",
        "package nvidia-driver is not held, recorded held",
    ),
    ("package removed", lambda h: h.packages.pop("nginx"), "package", "presence", "package nginx 1.22.1-9 was removed"),
    (
        "package new",
        lambda h: h.packages.update({"nvidia-smi": ("1", "install")}),
        "package",
        "presence",
        "package nvidia-smi 1 is new",
    ),
    (
        "file of a package",
        lambda h: setattr(h, "altered", "??5??????   /usr/sbin/nginx\n"),
        "package",
        "file of a package",
        "/usr/sbin/nginx, a file of an installed package, is altered",
    ),
    (
        "shell",
        lambda h: h.write("/etc/passwd", h.at("/etc/passwd").read_text().replace("nologin", "bash")),
        "user",
        "shell",
        "shell of user vllm: found /usr/sbin/bash",
    ),
    (
        "password",
        lambda h: h.write("/etc/shadow", "root:!:1::::::\nvllm:$y$secret:1::::::\n"),
        "user",
        "password",
        "password of user vllm: found set, recorded locked",
    ),
    (
        "user in a group",
        lambda h: h.write("/etc/group", h.at("/etc/group").read_text().replace("sudo:x:27:", "sudo:x:27:vllm")),
        "user",
        "groups",
        "groups of user vllm: found sudo",
    ),
    (
        "member of our group",
        lambda h: h.write("/etc/group", h.at("/etc/group").read_text().replace("vllm:x:990:", "vllm:x:990:mallory")),
        "user",
        "members",
        "members of group vllm: found mallory",
    ),
    (
        "authorised key",
        lambda h: h.write("/var/lib/vllm/.ssh/authorized_keys", "ssh-ed25519 AAAA m\n"),
        "user",
        "authorised keys",
        "authorised keys of user vllm: found 1, recorded none",
    ),
    (
        "user gone",
        lambda h: h.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        "user",
        "presence",
        "user vllm is gone",
    ),
    (
        "another process on our port",
        lambda h: listens(h, "   2: 00000000:01BB 00000000:0000 0A 0:0 0:0 0 0 0 900 1", "9", "nc", "ssh.service"),
        "socket",
        "process",
        "listens on 0.0.0.0:443, recorded nginx in nginx.service",
    ),
    (
        "our port on another address",
        lambda h: listens(h, "   2: 0100007F:01BB 00000000:0000 0A 0:0 0:0 0 0 0 900 1", "9", "nc", "x.scope"),
        "socket",
        "presence",
        "nc in x.scope listens on 127.0.0.1:443",
    ),
    (
        "our unit on another port",
        lambda h: listens(
            h, "   2: 00000000:1F90 00000000:0000 0A 0:0 0:0 0 0 0 900 1", "71", "nginx", "nginx.service"
        ),
        "socket",
        "presence",
        "nginx in nginx.service listens on 0.0.0.0:8080",
    ),
    (
        "listener gone",
        lambda h: h.write("/proc/net/tcp", "head\n"),
        "socket",
        "presence",
        "nginx no longer listens on 0.0.0.0:443",
    ),
    (
        "rule added",
        lambda h: setattr(h, "tables", TABLE.replace("\t\tmeta", "\t\tip saddr 10.0.0.9 accept\n\t\tmeta") + PROXY),
        "firewall",
        "rules",
        "inet edge has `ip saddr 10.0.0.9 accept`",
    ),
    (
        "rule removed",
        lambda h: setattr(h, "tables", TABLE.replace("\t\tmeta skuid >= 1000 reject\n", "") + PROXY),
        "firewall",
        "rules",
        "lacks `meta skuid >= 1000 reject`",
    ),
    (
        "table gone",
        lambda h: setattr(h, "tables", PROXY),
        "firewall",
        "presence",
        "table inet edge is gone while nginx.service is active",
    ),
    (
        "table of an open proxy gone",
        lambda h: setattr(h, "tables", TABLE),
        "firewall",
        "presence",
        "inet proxy_a is gone while proxy@a.socket is active",
    ),
    (
        "kernel",
        lambda h: h.write("/proc/sys/kernel/osrelease", "6.1.0-57-amd64\n"),
        "kernel",
        "value",
        "kernel release: found 6.1.0-57-amd64, recorded 6.1.0-56-amd64",
    ),
    (
        "kernel's command line",
        lambda h: h.write("/proc/cmdline", "ro mitigations=off\n"),
        "kernel",
        "value",
        "kernel command line: found ro mitigations=off",
    ),
    (
        "driver",
        lambda h: h.write("/sys/module/nvidia/version", "570.1\n"),
        "kernel",
        "version",
        "version of nvidia module: found 570.1",
    ),
    (
        "GPU gone",
        lambda h: h.write("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x0000"),
        "kernel",
        "presence",
        "GPU 0000:01:00.0 is gone",
    ),
    (
        "sysctl",
        lambda h: h.write("/proc/sys/vm/swappiness", "1\n"),
        "kernel",
        "value",
        "sysctl vm.swappiness: found 1, recorded 60",
    ),
]


SILENT: dict[str, Callable[[FakeHost], object]] = {
    "what changes by itself": both(
        lambda h: h.write("/var/lib/edge/state", "2"), lambda h: h.write("/etc/edge/drained/gpu2", "")
    ),
    "a drain flag gone": lambda h: h.at("/etc/edge/drained/gpu1:a").unlink(),
    "another name of a model's file": lambda h: os.link(h.at("/srv/models/blobs/weights"), h.at("/other-name")),
    "packages, units and ports of others": both(
        lambda h: h.packages.update({"vim": ("10", "hold")}),
        lambda h: h.units.update({"other.service": unit("other.service")}),
        lambda h: listens(h, "   2: 00000000:1F90 00000000:0000 0A 0:0 0:0 0 0 0 900 1", "71", "java", "other.service"),
    ),
    "another process number and start": lambda h: set_unit(
        h, "nginx.service", ExecStart="{ path=/bin/true ; argv[]=/bin/true ; start_time=[Mon] ; pid=9 ; status=0/0 }"
    ),
    "memory that a kernel counts otherwise": lambda h: set_unit(h, "rackserve-edge.service", MemoryMax="1000900"),
    "a unit between two states": lambda h: set_unit(h, "nginx.service", ActiveState="reloading"),
    "a unit that need not run": lambda h: set_unit(h, "rackserve-edge.service", ActiveState="active"),
    "a unit that systemd loads when needed": lambda h: h.units.update(
        {"engine@a.socket": unit("engine@a.socket", UnitFileState="")}
    ),
    "the table of a closed proxy": both(
        lambda h: setattr(h, "tables", TABLE),
        lambda h: set_unit(h, "proxy@a.socket", ActiveState="inactive"),
    ),
    "a file read": lambda h: h.at("/srv/models/blobs/weights").read_text(),
}
