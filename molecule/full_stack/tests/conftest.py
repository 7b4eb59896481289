"""The fleet as its operator sees it: the edge's address and certificate, and the controller's own commands."""

from __future__ import annotations

import json
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml
from openai import OpenAI

from testing.lab import INVENTORY, command

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture(scope="session")
def release() -> str:
    """Return the vLLM release that the hosts run."""
    runtime = yaml.safe_load((INVENTORY / "group_vars/all/runtime.yml").read_text(encoding="utf-8"))
    return str(runtime["stack_runtime"]["vllm"])


@pytest.fixture(scope="session")
def hostvars() -> dict[str, str]:
    """Return the templated variables of the edge that a client needs."""
    told = "address={{ ansible_host }} ca={{ stack_ca_file }} key={{ stack_client_key_file }} end"
    message = json.dumps({"msg": told})
    shown = command(*("ansible", "edge1", "-i", str(INVENTORY), "-m", "ansible.builtin.debug", "-a", message))
    found = re.search(r"address=(?P<address>\S+) ca=(?P<ca>\S+) key=(?P<key>\S+) end", " ".join(shown.stdout.split()))
    assert found, shown.stdout + shown.stderr
    return found.groupdict()


class ByName(httpx.HTTPTransport):
    """Reaches the edge by its address and holds its certificate against its name, as DNS would have it."""

    def __init__(self, address: str, ca: str) -> None:
        super().__init__(verify=ssl.create_default_context(cafile=ca))
        self._address = address

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request for the server's name to its address."""
        request.extensions = {**request.extensions, "sni_hostname": SERVER_NAME}
        request.url = request.url.copy_with(host=self._address)
        return super().handle_request(request)


@pytest.fixture(scope="session")
def edge(hostvars: dict[str, str]) -> Iterator[httpx.Client]:
    """Return a client of the edge that knows the lab's certificate authority only."""
    transport = ByName(hostvars["address"], hostvars["ca"])
    headers = {"Authorization": f"Bearer {Path(hostvars['key']).read_text(encoding='utf-8').strip()}"}
    with httpx.Client(transport=transport, base_url=f"https://{SERVER_NAME}", timeout=120, headers=headers) as client:
        yield client


@pytest.fixture(scope="session")
def openai(edge: httpx.Client, hostvars: dict[str, str]) -> OpenAI:
    """Return the OpenAI client over the edge."""
    key = Path(hostvars["key"]).read_text(encoding="utf-8").strip()
    return OpenAI(base_url=f"https://{SERVER_NAME}/v1", api_key=key, http_client=edge, max_retries=0)
