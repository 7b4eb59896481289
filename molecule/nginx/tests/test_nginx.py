"""The edge refuses in OpenAI's shape, lets nothing else through, and keeps prompts and keys to itself."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testinfra.host import Host

CANARY = f"canary-{secrets.token_hex(8)}"
PROBE = """
import http.client, json, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.check_hostname = False
context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
def ask(method, path, body=None, headers={}):
    c = http.client.HTTPSConnection('127.0.0.1', 443, context=context, timeout=20)
    c.request(method, path, body, headers)
    r = c.getresponse()
    return [r.status, dict(r.getheaders()), r.read().decode()]
print(json.dumps([ask(*request) for request in json.load(sys.stdin)]))
"""
Answer = tuple[int, dict[str, str], str]


def ask(host: Host, *requests: tuple[object, ...]) -> list[Answer]:
    """Send requests from the host itself, holding the certificate against the one that the role placed."""
    lines = PROBE.replace("'", "'\\''")
    text = json.dumps(requests).replace("'", "'\\''")
    shown = host.check_output(f"printf %s '{text}' | python3 -c '{lines}' /etc/nginx/tls/server.crt")
    return [(status, headers, body) for status, headers, body in json.loads(shown)]


def error(answer: Answer) -> dict[str, object]:
    found: dict[str, object] = json.loads(answer[2])["error"]
    return found


def test_the_edge_answers_its_own_health(host: Host) -> None:
    ((status, headers, body),) = ask(host, ("GET", "/healthz"))
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert headers["Strict-Transport-Security"] == "max-age=63072000"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metrics",
        "/invocations",
        "/tokenize",
        "/docs",
        "/v1/models/",
        "/v1//models",
        "/v1/models%0a",
        "/v1/load_lora_adapter",
        "/.rackserve/404",
    ],
)
def test_no_other_path_gets_through(host: Host, path: str) -> None:
    (answer,) = ask(host, ("POST", path, "{}"))
    assert answer[0] == 404
    assert set(error(answer)) >= {"message", "type", "code"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (("GET", "/v1/chat/completions"), 405),
        (("DELETE", "/v1/models"), 405),
        (("GET", "/v1/models"), 502),
        (("GET", "/" + "a" * 9000), 414),
        (("GET", "/healthz", None, {"X-Long": "a" * 9000}), 431),
        (("POST", "/v1/completions", None, {"Content-Length": str(11 << 20)}), 413),
    ],
    ids=["method", "method on models", "no engine", "long address", "long header", "large body"],
)
def test_a_refusal_is_json_in_openais_shape(host: Host, request_: tuple[object, ...], status: int) -> None:
    (answer,) = ask(host, request_)
    assert answer[0] == status
    assert error(answer)["code"] == status


def test_a_client_over_its_limit_is_told_when_to_come_back(host: Host) -> None:
    time.sleep(3)  # the tokens of earlier tests
    answers = ask(host, *[("GET", "/v1/models")] * 150)
    limited = [answer for answer in answers if answer[0] == 429]
    assert limited
    assert len(answers) - len(limited) >= 40
    assert error(limited[0])["type"] == "rate_limit_error"
    assert limited[0][1]["Retry-After"] == "1"
    time.sleep(1)
    assert ask(host, ("GET", "/v1/models"))[0][0] != 429


def test_no_prompt_and_no_key_is_logged(host: Host) -> None:
    headers = {"Authorization": f"Bearer {CANARY}"}
    ask(host, ("POST", f"/v1/completions?q={CANARY}", json.dumps({"prompt": CANARY}), headers))
    ask(host, ("GET", f"/{CANARY}"))
    assert CANARY in host.file("/var/log/nginx/access.log").content_string, "the path of the control is logged"
    assert host.file("/var/log/nginx/access.log").content_string.count(CANARY) == 1


def test_the_key_is_for_root_alone(host: Host) -> None:
    assert (host.file("/etc/nginx/tls/server.key").user, host.file("/etc/nginx/tls/server.key").mode) == ("root", 0o600)


def test_only_the_ports_for_clients_are_open_to_others(host: Host) -> None:
    rows = host.check_output("ss --tcp --listening --numeric --no-header --processes").splitlines()
    mine = {row.split()[3] for row in rows if "nginx" in row}
    assert {address for address in mine if not address.startswith("127.")} == {"0.0.0.0:443", "0.0.0.0:80"}


def test_old_protocols_are_refused(host: Host) -> None:
    code = (
        'import socket, ssl; c = ssl._create_unverified_context(); c.set_ciphers("DEFAULT@SECLEVEL=0");'
        " c.minimum_version = ssl.TLSVersion.{0}; c.maximum_version = ssl.TLSVersion.{0};"
        ' c.wrap_socket(socket.create_connection(("127.0.0.1", 443), 5))'
    )
    assert host.run(f"python3 -W ignore -c '{code.format('TLSv1_2')}'").rc == 0
    assert host.run(f"python3 -W ignore -c '{code.format('TLSv1_1')}'").rc != 0


def test_nginx_comes_back_when_it_is_killed(host: Host) -> None:
    before = host.check_output("systemctl show --property=MainPID --value nginx")
    host.check_output(f"kill -KILL {before}")
    time.sleep(3)
    assert host.service("nginx").is_running
    assert host.check_output("systemctl show --property=MainPID --value nginx") != before
    assert ask(host, ("GET", "/healthz"))[0][0] == 200


def test_the_exporter_tells_nginxs_counts(host: Host) -> None:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9113/metrics').read().decode())"
    assert "nginx_up 1" in host.check_output(f'python3 -c "{code}"')
