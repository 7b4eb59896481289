"""The edge as OpenAI's library sees it, from the controller and through TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from openai import OpenAI

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testinfra.host import Host

    Connect = Callable[..., OpenAI]

SERVER_NAME = "rackserve.lab"


def _by_name(request: httpx.Request) -> None:
    request.extensions = {**request.extensions, "sni_hostname": SERVER_NAME}


@pytest.fixture
def connect(host: Host) -> Iterator[Connect]:
    """Return a function that makes a client of OpenAI's library for a key; other options are the library's own."""
    context = ssl.create_default_context(cadata=host.check_output("cat /etc/nginx/tls/server.crt"))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    address = host.check_output("hostname -I").split()[0]
    opened: list[OpenAI] = []

    def make(key: str = "rsk-roomy", base: str = "https://{}/v1", **options: Any) -> OpenAI:  # noqa: ANN401
        # The library takes a client of httpx, though its types name its own copy of httpx alone.
        http = httpx.Client(verify=context, event_hooks={"request": [_by_name]}, timeout=90)
        opened.append(OpenAI(base_url=base.format(address), api_key=key, http_client=cast("Any", http), **options))
        return opened[-1]

    yield make
    for client in opened:
        client.close()
