"""Clients' certificates: who must show one, and which hold. The lab's own authority signs them."""

from __future__ import annotations

import datetime as dt
import json
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rackserve import pki
from testing.edge import ROOMY, ask, completion, engines, error, in_flight, request
from testing.lab import FOLDER

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

NOW = dt.datetime.now(dt.UTC)
SEALED = "rsk-sealed"


@pytest.fixture(scope="session")
def authority() -> pki.Pair:
    """Return the lab's own authority."""
    pair = pki.load(FOLDER / "pki", "ca")
    assert pair
    return pair


def pem(pair: pki.Pair) -> str:
    key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (key + pair.certificate.public_bytes(Encoding.PEM)).decode()


def asked(host: Host, key: str, pair: pki.Pair | None, path: str = "/v1/models") -> tuple[int, object]:
    """Ask with a key and a certificate; return the status, and the code of an error."""
    (answer,) = ask(host, {**request("GET", path, key=key), "pair": pem(pair) if pair else None})
    return answer["status"], None if answer["status"] == 200 else error(answer)["code"]


def test_a_key_with_a_certificate_of_its_own_holds_only_with_it(host: Host, authority: pki.Pair) -> None:
    own, other = (pki.issue_client(name, authority, NOW) for name in ("sealed", "other"))
    assert asked(host, SEALED, own) == (200, None)
    assert asked(host, SEALED, None) == (403, "certificate_required")
    assert asked(host, SEALED, other) == (403, "certificate_required")
    line = json.loads(host.file("/var/log/nginx/access.log").content_string.splitlines()[-1])
    assert line["certificate"] == "CN=other"


def test_others_need_none_and_none_that_does_not_hold_is_taken(host: Host, authority: pki.Pair) -> None:
    stranger = pki.issue_client("sealed", pki.make_authority("stranger", NOW), NOW)
    server = pki.issue_server(["sealed"], authority, NOW)
    ended = pki.issue_client("sealed", authority, NOW - dt.timedelta(days=400))
    assert asked(host, ROOMY, None) == (200, None)
    assert asked(host, ROOMY, pki.issue_client("any", authority, NOW)) == (200, None)
    for wrong in (stranger, server, ended):
        assert asked(host, ROOMY, wrong) == (400, "invalid_certificate")
        assert asked(host, SEALED, wrong) == (400, "invalid_certificate")


@dataclass
class Changed:
    """An edge that asks everybody for a certificate, has a list of revoked ones, and had a certificate near its end."""

    folder: Path
    resumed: list[tuple[int, bool]]
    streams: list[dict[str, Any]]

    def client(self, name: str) -> pki.Pair:
        """Return a client's certificate."""
        pair = pki.load(self.folder, f"client-{name}")
        assert pair
        return pair


@pytest.fixture(scope="module")
def changed(host: Host, play: Play, authority: pki.Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changed]:
    """Change the edge in one play, with streams open and a TLS session that a client would go on with."""
    folder = tmp_path_factory.mktemp("pki")
    pki.save(folder, "ca", authority)
    pki.save(folder, "edge1", pki.issue_server(names_of(host), authority, NOW - dt.timedelta(days=340)))
    for name in ("sealed", "good"):
        pki.ensure_client(folder, name)
    pki.revoke(folder, "sealed")
    session = Resumed(host, folder)
    resumed = [session.ask(), session.ask()]
    pair = {"nginx_tls_certificate_src": str(folder / "edge1.crt"), "nginx_tls_key_src": str(folder / "edge1.key")}
    wanted = {
        **pair,
        "edge_certificate_dir": str(folder),
        "nginx_client_crl_src": str(folder / "crl.pem"),
        "nginx_client_certificate_required": True,
    }
    with engines(host), in_flight(host, [completion(max_tokens=30, pause=1) for _ in range(20)]) as streams:
        done = play("molecule/nginx/converge.yml", wanted, "--tags", "edge_certificate,nginx")
    assert done.returncode == 0, done.stdout
    resumed.append(session.ask())
    yield Changed(folder, resumed, streams)
    done = play("molecule/nginx/converge.yml", {}, "--tags", "nginx")
    assert done.returncode == 0, done.stdout
    assert host.check_output("ls /etc/nginx/tls/clients-*").count(".") == 1, "what is not read any more is gone"


def names_of(host: Host) -> list[str]:
    return ["rackserve.lab", "edge1", host.check_output("hostname -I").split()[0]]


def test_all_must_show_one_where_all_must(host: Host, changed: Changed) -> None:
    assert asked(host, ROOMY, changed.client("good")) == (200, None)
    assert asked(host, ROOMY, None) == (400, "certificate_required")


def test_a_revoked_one_does_not_hold_and_no_earlier_session_goes_on(host: Host, changed: Changed) -> None:
    assert changed.resumed[:2] == [(200, False), (200, True)], "the control: before, a session does go on"
    assert changed.resumed[2] == (400, False)
    assert asked(host, SEALED, changed.client("sealed")) == (400, "invalid_certificate")


def test_health_needs_none_and_takes_none_that_does_not_hold(host: Host, changed: Changed) -> None:
    assert asked(host, ROOMY, None, "/healthz") == (200, None)
    assert asked(host, ROOMY, changed.client("sealed"), "/healthz") == (400, "invalid_certificate")


def test_the_edges_own_was_renewed_before_its_end_and_no_stream_broke(host: Host, changed: Changed) -> None:
    renewed = pki.load(changed.folder, "edge1")
    assert renewed
    assert renewed.certificate.not_valid_after_utc - NOW > dt.timedelta(days=360)
    served = ssl.get_server_certificate((names_of(host)[-1], 443))
    assert served.encode() == renewed.certificate.public_bytes(Encoding.PEM)
    assert len(changed.streams) == 20
    assert [answer for answer in changed.streams if answer["status"] != 200 or "broken" in answer] == []


class Resumed:
    """A client that goes on with its TLS session, from the controller."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._address = host.check_output("hostname -I").split()[0]
        self._context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 a session comes only after the first answer
        self._context.load_cert_chain(folder / "client-sealed.crt", folder / "client-sealed.key")
        self._session: ssl.SSLSession | None = None

    def ask(self) -> tuple[int, bool]:
        """Ask for the models in the session that there is; return the status, and whether the session went on."""
        plain = socket.create_connection((self._address, 443), 20)
        with self._context.wrap_socket(plain, server_hostname=self._address, session=self._session) as link:
            self._session = link.session
            key = f"Authorization: Bearer {SEALED}"
            link.sendall(f"GET /v1/models HTTP/1.1\r\nHost: edge\r\n{key}\r\nConnection: close\r\n\r\n".encode())
            return int(link.recv(65536).split()[1]), bool(link.session_reused)
