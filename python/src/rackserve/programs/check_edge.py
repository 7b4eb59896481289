#!/usr/bin/env python3
"""Check the health of this host's edge, for keepalived: exit 0 when it may hold the virtual IP.

    check_edge.py HTTPS_PORT METRICS_PORT

It checks that the edge answers through TLS, and that its workers have loaded clients, models and servers. Engines are
not checked, since the other edge has the same ones.
"""

from __future__ import annotations

import http.client
import re
import ssl
import sys

TIMEOUT_S = 2


def answer_of(connection: http.client.HTTPConnection, path: str) -> str:
    """Return the answer's text; raise OSError or HTTPException when there is no 200 in time."""
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"{path}: HTTP {answer.status}")
        return answer.read().decode(errors="replace")
    finally:
        connection.close()


def main(argv: list[str]) -> int:
    """Run the check."""
    https_port, metrics_port = map(int, argv)
    context = ssl._create_unverified_context()  # noqa: S323, SLF001 - the loopback has another name
    try:
        answer_of(http.client.HTTPSConnection("127.0.0.1", https_port, timeout=TIMEOUT_S, context=context), "/healthz")
        known = answer_of(http.client.HTTPConnection("127.0.0.1", metrics_port, timeout=TIMEOUT_S), "/edge")
    except (OSError, http.client.HTTPException) as wrong:
        print(f"the edge does not answer: {wrong}", file=sys.stderr)
        return 1
    if not re.fullmatch("[0-9a-f]{16}", known.strip()):
        print(f"the edge's workers do not say what they know: {known[:80]!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
