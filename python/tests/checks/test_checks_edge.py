"""The checks through the edge: judged on fake answers, and TLS against a real socket."""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import json
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rackserve import pki
from rackserve.checks import EdgeTarget, edge
from rackserve.checks.edge import (
    ChatCheck,
    RateLimitCheck,
    TlsCheck,
    UnauthenticatedCheck,
    UnknownPathCheck,
    run_edge_checks,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ERROR = json.dumps({"error": {"message": "slow down", "type": "rate_limit"}})
KEY = "rsk-tests"
PARIS = json.dumps({"choices": [{"message": {"content": "Paris"}}]})


def target(port: int = 443, ca_file: Path | None = None, name: str = "llm.lab") -> EdgeTarget:
    key_file = ca_file.with_name("client.key") if ca_file else None
    return EdgeTarget("edge1", "127.0.0.1", port, name, ca_file, key_file, "small", "Paris", rate=2, burst=3)


class FakeEdge:
    def __init__(self, *answers: tuple[int, str] | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, str]] = []

    def send(self, method: str, path: str, body: Mapping[str, object] | None = None) -> tuple[int, str]:
        del body
        self.sent.append((method, path))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(("answer", "ok"), [((401, ERROR), True), ((401, "no"), False), ((200, "{}"), False)])
def test_a_request_without_a_key_is_refused(answer: tuple[int, str], ok: bool) -> None:  # noqa: FBT001
    assert UnauthenticatedCheck(target(), FakeEdge(answer)).run().ok is ok


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        ((200, PARIS), True),
        ((200, PARIS.replace("Paris", "Rome")), False),
        ((502, ERROR), False),
        (httpx.ConnectError("refused"), False),
    ],
)
def test_chat(answer: tuple[int, str] | Exception, ok: bool) -> None:  # noqa: FBT001
    assert ChatCheck(target(), FakeEdge(answer), stream=False).run().ok is ok


def test_a_limit_used_up_before_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "_BUSY_PAUSE_S", 0)
    assert ChatCheck(target(), FakeEdge((429, ERROR), (200, PARIS)), stream=False).run().ok
    assert not ChatCheck(target(), FakeEdge((429, ERROR)), stream=False).run().ok


def test_a_stream_that_is_not_one_fails() -> None:
    assert not ChatCheck(target(), FakeEdge((200, PARIS)), stream=True).run().ok


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        ((404, ERROR), True),
        ((404, "<html>"), False),
        ((404, "{}"), False),
        ((404, '{"error": "text"}'), False),
        ((200, ERROR), False),
        (httpx.ReadTimeout("late"), False),
    ],
)
def test_unknown_path(answer: tuple[int, str] | Exception, ok: bool) -> None:  # noqa: FBT001
    assert UnknownPathCheck(target(), FakeEdge(answer)).run().ok is ok


@pytest.mark.parametrize(
    ("answers", "ok", "word"),
    [
        ([(200, "{}"), (429, ERROR)], True, "1 of 25 accepted, 24 refused"),
        ([(200, "{}")], False, "no 429"),
        ([(429, ERROR)], False, "all 25 requests were refused"),
        ([(200, "{}"), (429, "<html>")], False, "without a JSON error"),
        ([(200, "{}"), (503, "x"), (429, ERROR)], False, "HTTP 503"),
        ([(200, "{}"), httpx.ConnectError("refused"), (429, ERROR)], False, "HTTP 0: no answer"),
    ],
)
def test_rate_limit(answers: list[Any], ok: bool, word: str) -> None:  # noqa: FBT001
    client = FakeEdge(*answers)
    found = RateLimitCheck(target(), client).run()
    assert (found.ok, word in found.detail) == (ok, True), found
    assert len(client.sent) == 25


def test_the_burst_is_bounded() -> None:
    client = FakeEdge((200, "{}"))
    RateLimitCheck(EdgeTarget("e", "a", 1, "n", None, None, "m", "", rate=10**6, burst=0), client).run()
    assert len(client.sent) == 500


def write_pki(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a CA and a server certificate of it; return the CA's file and the server's."""
    now = dt.datetime.now(dt.UTC)

    def build(subject: str, issuer: str, key: Any, signer: Any, *, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=10))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_file, server_file = folder / "ca.crt", folder / "server.pem"
    pem = serialization.Encoding.PEM
    ca_file.write_bytes(build("ca", "ca", ca_key, ca_key, ca=True).public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "client.key").write_text(f"{KEY}\n")
    server_file.write_bytes(secret + build("server", "ca", key, ca_key, ca=False).public_bytes(pem))
    return ca_file, server_file


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # refused handshakes are the point


class EdgeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        right = self.headers["Host"] == "llm.lab" and self.headers["Authorization"] == f"Bearer {KEY}"
        text = PARIS if right else "{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@contextmanager
def tls_edge(server_file: Path, asks: Path | None = None) -> Iterator[int]:
    server = QuietServer(("127.0.0.1", 0), EdgeHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_file)
    if asks:
        context.load_verify_locations(asks)
        context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_tls_holds_the_name_against_the_sites_ca(tmp_path: Path) -> None:
    ca_file, server_file = write_pki(tmp_path, "llm.lab")
    other = tmp_path / "other"
    other.mkdir()
    other_ca, _ = write_pki(other, "llm.lab")
    with tls_edge(server_file) as port:
        good = TlsCheck(target(port, ca_file)).run()
        wrong_name = TlsCheck(target(port, ca_file, "llm.example")).run()
        wrong_ca = TlsCheck(target(port, other_ca)).run()
        chat = run_edge_checks(target(port, ca_file))[2]
        wrong_chat = run_edge_checks(target(port, ca_file, "llm.example"))[2]
        (ca_file.with_name("client.key")).unlink()
        no_key = run_edge_checks(target(port, ca_file))[1]
    assert good.ok, good
    assert "9 days left" in good.detail
    assert not wrong_name.ok
    assert "is not valid for llm.example" in wrong_name.detail
    assert not wrong_ca.ok
    assert chat.ok, chat
    assert not wrong_chat.ok
    assert "no answer" in wrong_chat.detail
    assert not no_key.ok
    assert "client.key: No such file or directory; set stack_client_key_file" in no_key.detail
    refused = TlsCheck(target(port, ca_file)).run()
    assert not refused.ok


def test_an_edge_that_asks_for_a_certificate_is_shown_one(tmp_path: Path) -> None:
    pki.new_authority(tmp_path / "pki", "CA")
    pki.ensure_server(tmp_path / "pki", "edge1", ["llm.lab"])
    pki.ensure_client(tmp_path / "pki", "verify")
    (tmp_path / "pki/client.key").write_text(KEY, encoding="utf-8")
    own = tmp_path / "pki/client-verify.crt"
    pair = tmp_path / "pair.pem"
    pair.write_text((tmp_path / "pki/edge1.crt").read_text() + (tmp_path / "pki/edge1.key").read_text())
    with tls_edge(pair, asks=tmp_path / "pki/ca.crt") as port:
        without = target(port, tmp_path / "pki/ca.crt")
        shown = dataclasses.replace(without, certificate_file=own)
        chats = [run_edge_checks(one)[2] for one in (shown, without)]
        own.with_suffix(".key").unlink()
        lost = run_edge_checks(shown)[0]
    assert [chat.ok for chat in chats] == [True, False]
    assert not lost.ok
    assert "set stack_client_certificate_file" in lost.detail


def test_a_missing_ca_is_one_failed_check_that_names_the_setting(tmp_path: Path) -> None:
    results = run_edge_checks(target(ca_file=tmp_path / "ca.crt"))
    assert [(result.name, result.ok) for result in results] == [("tls", False)]
    assert "stack_ca_file" in results[0].detail


def test_a_ca_file_without_a_certificate_is_a_failed_check(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.crt"
    ca_file.write_text("not a certificate", encoding="utf-8")
    (tmp_path / "client.key").write_text(KEY, encoding="utf-8")
    assert [result.ok for result in run_edge_checks(target(1, ca_file))] == [False]
