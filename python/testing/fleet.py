"""The hosts of the whole stack together, as scenarios ask them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testinfra.host import Host

SERVER_NAME = "rackserve.lab"
# Last number of a host's address, and port: two instances on gpu1, one on gpu2.
ENGINES = ((11, 8000), (11, 8001), (12, 8000))


def measured(edge: Host, metric: str) -> dict[tuple[int, int], float]:
    """Return a metric of each engine, summed over its labels, as the edge, which may ask them, reads it."""
    prefix = edge.check_output("hostname -I").split()[0].rpartition(".")[0]
    code = "import urllib.request as u; print(u.urlopen('http://{}.{}:{}/metrics').read().decode())"
    found = {}
    for number, port in ENGINES:
        page = edge.check_output(f'python3 -c "{code.format(prefix, number, port)}"')
        lines = [line for line in page.splitlines() if line.startswith((f"{metric}{{", f"{metric} "))]
        assert lines, f"{metric} is not a metric of the engine at port {port} of host {number}"
        found[number, port] = sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return found


class Gpus(dict[str, "Host"]):
    """The two hosts of engines by name."""

    def run(self, command: str) -> None:
        """Run a command on both."""
        for host in self.values():
            host.check_output(command)

    def wait(self, command: str, seconds: int) -> None:
        """Wait until a command succeeds on both."""
        until = time.monotonic() + seconds
        while not all(host.run(command).rc == 0 for host in self.values()):
            assert time.monotonic() < until, [host.run("systemctl status 'vllm@*'").stdout for host in self.values()]
            time.sleep(1)
