"""The fleet as its operator sees it: the edge's address and certificate, and the controller's own commands."""

from __future__ import annotations

import json
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import yaml
from openai import OpenAI

from testing.fleet import SERVER_NAME
from testing.lab import INVENTORY, command

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    # The library takes a client of httpx, though its types name its own copy of httpx alone.
    return OpenAI(base_url=f"https://{SERVER_NAME}/v1", api_key=key, http_client=cast("Any", edge), max_retries=0)
