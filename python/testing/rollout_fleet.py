"""What a rollout did to the lab's hosts and to the edge's rotation."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from testing.lab import SSH_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from testinfra.host import Host

NAME: Final = "smollm2"
EDGE_METRICS: Final = "http://127.0.0.1:8080/metrics"
_SERVES_WITHIN_S: Final = 300
# Runs on the edge: once a second the weight of every instance in its rotation; 0 is out of it.
WATCH: Final = f"""
import json, re, sys, time, urllib.request
row = re.compile(r'rackserve_edge_(drained|weight)\\{{upstream="([^"]+)"\\}} (\\S+)')
while True:
    try:
        page = urllib.request.urlopen('{EDGE_METRICS}', timeout=3).read().decode()
    except OSError:
        time.sleep(0.2)
        continue
    found = dict(drained=dict(), weight=dict())
    for kind, label, value in row.findall(page):
        found[kind][label] = float(value)
    print(json.dumps(dict(at=time.time(), **found)), flush=True)
    time.sleep(1)
"""


@dataclass(frozen=True)
class Look:
    """The rotation of one moment: by HOST:INSTANCE whether it is drained, and its weight where the edge tells one."""

    at: float
    drained: dict[str, float]
    weight: dict[str, float]

    def state(self, host: str) -> str:
        """Return a host's state in words of python/tools/rollout_picture.py."""
        mine = [label for label in self.drained if label.startswith(f"{host}:")]
        if any(self.drained[label] for label in mine):
            return "drains"
        most = max(self.weight.values(), default=0)
        return "gates" if any(self.weight.get(label, most) < most for label in mine) else "serves"


@dataclass
class Watch:
    """The looks at a rotation from the begin of a block to its end."""

    looks: list[Look] = field(default_factory=list)

    def touched(self) -> set[str]:
        """Return the hosts that were out of the rotation, or in it with a share, at any look."""
        hosts = {label.partition(":")[0] for look in self.looks for label in look.drained}
        return {host for host in hosts if any(look.state(host) != "serves" for look in self.looks)}

    def events(self) -> list[dict[str, object]]:
        """Return the changes of every host's state."""
        hosts = sorted({label.partition(":")[0] for look in self.looks for label in look.drained})
        found: list[dict[str, object]] = []
        for host in hosts:
            last = "serves"
            for look in self.looks:
                if (state := look.state(host)) != last:
                    found.append({"at": look.at, "host": host, "state": state})
                    last = state
        return found

    def save(self, path: Path) -> None:
        """Write the events for python/tools/rollout_picture.py."""
        path.write_text("".join(f"{json.dumps(event)}\n" for event in self.events()), encoding="utf-8")


@contextmanager
def watching() -> Iterator[Watch]:
    """Look at the edge's rotation once a second."""
    found = Watch()
    argv = ["ssh", "-F", str(SSH_CONFIG), "edge1", "timeout 7000 python3 -u -"]
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as program:
        program.write(WATCH)
        program.seek(0)
        with subprocess.Popen(argv, stdin=program, stdout=told) as watcher:
            try:
                yield found
            finally:
                watcher.terminate()
        told.seek(0)
        lines = [line for line in told if line.endswith("}\n")]
        found.looks.extend(Look(**json.loads(line)) for line in lines)


class Fleet(dict[str, "Host"]):
    """The hosts of engines by name, and the edge."""

    def __init__(self, hosts: dict[str, Host], edge: Host) -> None:
        super().__init__(hosts)
        self.edge = edge

    def live(self) -> dict[str, str]:
        """Return the digest of the generation that is live on each host."""
        links = {name: host.check_output(f"readlink /etc/vllm/instances/{NAME}/current") for name, host in self.items()}
        return {name: link.rpartition("/")[2] for name, link in links.items()}

    def invocations(self) -> dict[str, str]:
        """Return what changes with each start of the live engines."""
        show = "systemctl show --property=InvocationID --value vllm@{}.{}.service"
        live = self.live()
        return {name: host.check_output(show.format(NAME, live[name])) for name, host in self.items()}

    def engines(self, host: str) -> set[str]:
        """Return the generations whose engines run on a host."""
        units = self[host].check_output("systemctl list-units --plain --no-legend --state=active 'vllm@*'")
        return {line.split()[0].removesuffix(".service").rpartition(".")[2] for line in units.splitlines()}

    def serve(self, seconds: int = _SERVES_WITHIN_S) -> None:
        """Wait until every host's entry is open."""
        end = time.monotonic() + seconds
        while closed := [n for n, h in self.items() if h.run(f"systemctl is-active vllm-proxy@{NAME}.socket").rc]:
            assert time.monotonic() < end, f"{closed} do not serve after {seconds} s"
            time.sleep(1)

    def rotation(self) -> Look:
        """Return the edge's rotation now."""
        page = self.edge.check_output(f'python3 -c "{_ONCE}"')
        return Look(**json.loads(page))

    def out(self) -> set[str]:
        """Return the hosts that are drained, or have only a share."""
        look = self.rotation()
        return {name for name in self if look.state(name) != "serves"}


_ONCE: Final = (
    "import json, re, time, urllib.request as u;"
    f" page = u.urlopen('{EDGE_METRICS}', timeout=10).read().decode();"
    " row = lambda kind: dict((label, float(value)) for label, value in re.findall("
    "'rackserve_edge_' + kind + '.upstream=.([^,}]+).} (.+)', page));"
    " print(json.dumps(dict(at=time.time(), drained=row('drained'), weight=row('weight'))))"
)
