"""The edge's certificate, verified on the host as a client verifies it."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from rackserve import pki
from rackserve.ansible.modules.edge_handshake import handshake_problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def edge(folder: Path) -> Iterator[int]:
    """Accepts one TLS connection with a certificate for edge.example."""
    pki.ensure_server(folder, "edge", ["edge.example"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "edge.crt", folder / "edge.key")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def accept() -> None:
        try:
            with listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True):
                pass
        except OSError:  # the client rejected the certificate
            pass

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    ("name", "authority", "problem"),
    [
        ("edge.example", "site", ""),
        ("other.example", "site", "Hostname mismatch"),
        ("edge.example", "other", "unable to get local issuer certificate"),
    ],
    ids=["valid", "wrong server name", "wrong CA"],
)
def test_only_a_certificate_of_the_ca_for_the_name_is_valid(
    tmp_path: Path, name: str, authority: str, problem: str
) -> None:
    for folder in ("site", "other"):
        pki.new_authority(tmp_path / folder, folder)
    with edge(tmp_path / "site") as port:
        found = handshake_problem(port, name, (tmp_path / authority / "ca.crt").read_text())
    assert problem in found
    assert bool(problem) == bool(found)


def test_a_closed_port_is_a_problem(tmp_path: Path) -> None:
    pki.new_authority(tmp_path, "site")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    assert "refused" in handshake_problem(port, "edge.example", (tmp_path / "ca.crt").read_text())


def test_a_ca_file_without_a_certificate_is_a_problem() -> None:
    assert handshake_problem(1, "edge.example", "no certificate")
