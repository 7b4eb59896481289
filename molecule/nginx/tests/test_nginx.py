"""The edge refuses in OpenAI's shape, lets nothing else through, and keeps prompts and keys to itself."""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from testing.edge import ROOMY, address, ask, completion, engines, error, request, seen

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

ENGINE = {"host": "h", "instance": "a", "address": "127.0.0.1", "port": 7001, "model": "m", "served_names": ["m"]}
CLIENT = {"name": "a", "keys": [{"sha256": "0" * 64}]}
# New in every run: the logs of a run before are still there.
CANARY = f"canary-{secrets.token_hex(8)}"
# The least of HTTP/2: a preface, empty settings, and a POST that says how large its body is.
LARGE_OVER_HTTP_2 = r"""
import socket, ssl
context = ssl._create_unverified_context()
context.set_alpn_protocols(['h2'])
link = context.wrap_socket(socket.create_connection(('127.0.0.1', 443), 5))
def frame(kind, flags, stream, body):
    return len(body).to_bytes(3, 'big') + bytes([kind, flags]) + stream.to_bytes(4, 'big') + body
def text(value):
    return bytes([len(value)]) + value.encode()
head = bytes([0x83, 0x87, 0x04]) + text('/v1/completions') + bytes([0x01]) + text('x')
head += bytes([0x0F, 13]) + text('11534336')
link.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + frame(4, 0, 0, b'') + frame(1, 4, 1, head))
got = b''
while b'}}' not in got and b'</html>' not in got:
    more = link.recv(65536)
    if not more:
        break
    got += more
print(got)
"""


def test_the_edge_answers_its_own_health(host: Host) -> None:
    (answer,) = ask(host, request("GET", "/healthz", key=None))
    assert (answer["status"], json.loads(answer["text"])) == (200, {"status": "ok"})
    assert answer["headers"]["strict-transport-security"] == "max-age=63072000"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request("GET", "/v1/chat/completions"), 405),
        (request("DELETE", "/v1/models"), 405),
        (request("GET", "/" + "a" * 9000), 414),
        (request("GET", "/healthz", headers={"X-Long": "a" * 9000}), 431),
        (request("POST", "/v1/completions", headers={"Content-Length": str(11 << 20)}), 413),
        (request("POST", "/v1/completions", headers={"Transfer-Encoding": "bogus"}), 501),
        (request("GET", "/healthz", headers={"If-Match": "x"}), 412),
        (request("GET", "/.rackserve/404"), 404),
    ],
    ids=[
        "method",
        "method on models",
        "long address",
        "long header",
        "large body",
        "coding",
        "condition",
        "inner path",
    ],
)
def test_a_refusal_is_json_in_openais_shape(host: Host, sent: dict[str, Any], status: int) -> None:
    (answer,) = ask(host, sent)
    assert answer["status"] == status
    assert error(answer)["code"] == status


def test_a_request_that_no_engine_has_had_may_be_sent_again(host: Host) -> None:
    (answer,) = ask(host, completion())
    assert (answer["status"], answer["headers"]["retry-after"]) == (503, "5")
    assert error(answer)["type"] == "server_error"
    assert "x-should-retry" not in answer["headers"]


def test_a_request_that_an_engine_has_had_is_not_sent_again(host: Host) -> None:
    with engines(host):
        (answer,) = ask(host, completion(fail={"7001": "close", "7002": "close"}))
        assert (answer["status"], answer["headers"]["x-should-retry"]) == (502, "false")
        assert len(seen(host)) == 1


def test_a_large_body_is_refused_in_json_over_http_2(host: Host) -> None:
    assert '"code":413' in host.check_output(f"python3 -c {shlex.quote(LARGE_OVER_HTTP_2)}")


def test_an_address_over_its_limit_is_told_when_to_come_back(host: Host) -> None:
    source = address()
    answers = ask(host, *[request("GET", "/v1/models", source=source)] * 150)
    limited = [answer for answer in answers if answer["status"] == 429]
    assert limited
    assert len(answers) - len(limited) >= 40
    assert error(limited[0])["type"] == "rate_limit_error"
    assert limited[0]["headers"]["retry-after"] == "1"
    time.sleep(1)
    assert ask(host, request("GET", "/v1/models", source=source))[0]["status"] == 200


def test_no_prompt_and_no_key_is_kept(host: Host) -> None:
    body = {"model": "small", "prompt": CANARY}
    refused = request("POST", f"/v1/completions?q={CANARY}", body, key=CANARY)
    with engines(host):
        assert [answer["status"] for answer in ask(host, refused, completion(prompt=CANARY * 5000))] == [401, 200]
    ask(host, request("GET", f"/{CANARY}"))
    log = host.file("/var/log/nginx/access.log").content_string
    assert log.count(CANARY) == 1, "the path of the control is logged, and nothing else"
    places = "/etc/nginx /var/log /var/lib/nginx /var/lib/rackserve /tmp /run/nginx.pid"
    found = host.run(f"grep -rlsF {CANARY} {places}").stdout.split()
    assert found == ["/var/log/nginx/access.log"]
    assert CANARY not in host.check_output("journalctl --no-pager --boot")


def test_a_request_is_logged_with_client_and_model(host: Host) -> None:
    with engines(host):
        ask(host, completion("large"))
    line = json.loads(host.file("/var/log/nginx/access.log").content_string.splitlines()[-1])
    assert (line["api_client"], line["model"], line["status"], line["upstream"]) == (
        "roomy",
        "large",
        200,
        "127.0.0.1:7003",
    )
    assert line["key"] == hashlib.sha256(ROOMY.encode()).hexdigest()[:12]


def test_the_key_is_for_root_alone(host: Host) -> None:
    assert (host.file("/etc/nginx/tls/server.key").user, host.file("/etc/nginx/tls/server.key").mode) == ("root", 0o600)


def test_only_the_ports_for_clients_are_open_to_others(host: Host) -> None:
    rows = host.check_output("ss --tcp --listening --numeric --no-header --processes").splitlines()
    mine = {row.split()[3] for row in rows if "nginx" in row}
    assert {address for address in mine if not address.startswith("127.")} == {"0.0.0.0:443", "0.0.0.0:80"}


@pytest.mark.parametrize(("user", "refused"), [("root", 0), ("www-data", 0), ("nobody", 1), ("1500", 1)])
def test_login_users_of_the_edge_do_not_reach_an_engine(host: Host, user: str, refused: int) -> None:
    code = "import socket; socket.create_connection(('127.0.0.1', 7001), 3)"
    with engines(host):
        done = host.run(f'setpriv --reuid={user} --clear-groups python3 -c "{code}"')
    assert done.stderr.count("ConnectionRefusedError") == done.rc == refused, done.stderr


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
    assert ask(host, request("GET", "/healthz"))[0]["status"] == 200


def test_the_exporter_tells_nginxs_counts(host: Host) -> None:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9113/metrics').read().decode())"
    assert "nginx_up 1" in host.check_output(f'python3 -c "{code}"')


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a key that belongs to no certificate, of another kind than the lab's: nginx does not notice that."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = tmp_path_factory.mktemp("pki") / "other.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(path)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"nginx_tls_key_src": "OTHER"}, "are not a certificate and its own, unencrypted key"),
        ({"nginx_tls_key_src": "/nowhere.key"}, "/nowhere.key is not on the controller"),
        ({"nginx_http_port": 443}, "must differ from each other"),
        ({"nginx_limit_rate": 0}, "nginx_limit_rate is 0"),
        ({"nginx_rate": 5}, "unknown variable(s) nginx_rate"),
        ({"nginx_backends": []}, "nginx_backends is empty"),
        ({"nginx_backends": [ENGINE, ENGINE]}, "two of nginx_backends have one address and port"),
        ({"nginx_backends": [ENGINE | {"task": "sing"}]}, "task: Input should be"),
        ({"nginx_optional_paths": ["/metrics"]}, "/metrics cannot be offered"),
        ({"nginx_affinity_concurrent": 0}, "nginx_affinity_concurrent is 0"),
        ({"nginx_clients": []}, "there is no client, so every request would be refused"),
        ({"nginx_clients": [CLIENT | {"models": ["gpt-4"]}]}, "no instance serves 'gpt-4'"),
        ({"nginx_drain": ["gpu2"], "nginx_undrain": ["gpu2"]}, "both have gpu2; name it in one of the two"),
    ],
    ids=[
        "another key",
        "no key",
        "one port",
        "no rate",
        "a typing error",
        "no engine",
        "one engine twice",
        "no such task",
        "no such path",
        "no room for what is shared",
        "no client",
        "a client's model",
        "out and in at once",
    ],
)
@pytest.mark.usefixtures("host")
def test_what_cannot_work_is_refused(play: Play, variables: dict[str, object], reason: str, other_key: str) -> None:
    chosen = {name: other_key if value == "OTHER" else value for name, value in variables.items()}
    done = play("molecule/nginx/converge.yml", chosen, "--tags", "nginx_preflight")
    assert done.returncode != 0
    assert reason in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("drain", "reason"),
    [
        (["gpu2"], "no instance would serve adapter, large; undrain another one first"),
        (["gpu9"], "no host and no instance 'gpu9' is behind the edge"),
    ],
    ids=["the last instance", "an unknown host"],
)
def test_a_drain_that_is_refused_changes_nothing(host: Host, play: Play, drain: list[str], reason: str) -> None:
    before = host.check_output("cat /etc/nginx/rackserve/edge-*/upstreams.conf")
    done = play("molecule/nginx/converge.yml", {"nginx_drain": drain}, "--tags", "nginx_rotate")
    assert done.returncode != 0
    assert reason in " ".join(done.stdout.split())
    assert host.check_output("cat /etc/nginx/rackserve/edge-*/upstreams.conf") == before
