"""Clients of the edge, run on the edge's host: reads a JSON list of requests on stdin, sends them, prints what came.

Each request has method, path, body, headers, `source` (address to send from), `start` (seconds to wait before) and
`pair` (a client's certificate with its key, PEM); `halves` has the body sent without its length, in two halves with so
many seconds between. They are sent at once when the first argument is `together`, else one after the other.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import ssl
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def context_of(pair: str | None) -> ssl.SSLContext:
    """Trust the edge's own certificate, and show one where there is one to show."""
    context = ssl.create_default_context(cafile="/etc/nginx/tls/server.crt")
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if pair:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(pair)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def halves(request: dict[str, Any]) -> Iterator[bytes]:
    """Give a request's body in two pieces, and time between them."""
    body = request["body"].encode()
    yield body[: len(body) // 2]
    time.sleep(request["halves"])
    yield body[len(body) // 2 :]


def send(request: dict[str, Any]) -> dict[str, Any]:
    """Send one request and read its answer to the end; `broken` says why that was not possible."""
    time.sleep(request.get("start", 0))
    began = time.monotonic()
    link = http.client.HTTPSConnection(
        "127.0.0.1",
        443,
        context=context_of(request.get("pair")),
        timeout=90,
        source_address=(request.get("source", "127.0.0.1"), 0),
    )
    found: dict[str, Any] = {}
    try:
        body = halves(request) if "halves" in request else request.get("body")
        link.request(request["method"], request["path"], body, request.get("headers", {}))
        answer = link.getresponse()
        found = {"status": answer.status, "headers": {name.lower(): value for name, value in answer.getheaders()}}
        found["text"] = answer.read().decode()
        if answer.headers.get_content_type() == "text/event-stream" and not found["text"].endswith("data: [DONE]\n\n"):
            found["broken"] = "the stream has no end"
    except (OSError, http.client.HTTPException) as error:
        found["broken"] = repr(error)
    finally:
        link.close()
    return {**found, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    requests = json.load(sys.stdin)
    with concurrent.futures.ThreadPoolExecutor(len(requests) if sys.argv[1:] == ["together"] else 1) as pool:
        print(json.dumps(list(pool.map(send, requests))))
