"""Clients of the edge, run on the edge's host: reads a JSON list of requests on stdin, sends them, prints what came.

Each request has method, path, body, headers, `source` (address to send from) and `start` (seconds to wait before). They
are sent at once when the first argument is `together`, else one after the other.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import ssl
import sys
import time
from typing import Any

CONTEXT = ssl.create_default_context(cafile="/etc/nginx/tls/server.crt")
CONTEXT.check_hostname = False
CONTEXT.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def send(request: dict[str, Any]) -> dict[str, Any]:
    """Send one request and read its answer to the end; `broken` says why that was not possible."""
    time.sleep(request.get("start", 0))
    began = time.monotonic()
    link = http.client.HTTPSConnection(
        "127.0.0.1", 443, context=CONTEXT, timeout=90, source_address=(request.get("source", "127.0.0.1"), 0)
    )
    found: dict[str, Any] = {}
    try:
        link.request(request["method"], request["path"], request.get("body"), request.get("headers", {}))
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
