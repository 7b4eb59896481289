"""Validation of a server's certificate and key, whichever CA signed it."""

from __future__ import annotations

import ssl


def pair_problem(certificate: str, key: str) -> str:
    """Return why a server could not show a certificate with a key, two PEM files; an empty text means that it could."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as refused:
        return f"{certificate} and {key} are not a certificate and its own, unencrypted key: {refused}"
    return ""
