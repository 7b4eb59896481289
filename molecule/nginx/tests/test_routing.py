"""Which requests reach an engine, and which engine; streams outlive reloads."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING

import pytest
from edge_lab import ask, completion, engines, error, in_flight, request, seen

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
# Ways to write a path of the engine's so that a careless allowlist lets it through.
ENCODINGS = (
    "/v1//completions", "//v1/completions", "/v1/completions/", "/v1/./completions/.", "/v1/completions%0a",
    "/v1/completions%00", "/v1/completions%20", "/v1/completions%2f", "/v1%2fcompletions", "/v1/completions;a",
    "/V1/completions", "/v1/Completions", "/v1/completions/..;/metrics", "/v1/completions/../../metrics",
    "/v1/completions%2f..%2f..%2fmetrics", "/%76%31/tokenize", "/v1/completions/%2e%2e/load_lora_adapter",
    "/v1/..%2fmetrics", "/metrics%3f", "/tokenize", "/invocations", "/v1/embeddings", "/v1\\completions",
    "/v1/completions%23",
)  # fmt: skip


def test_a_models_name_leads_to_the_instances_that_serve_it(host: Host) -> None:
    with engines(host):
        for model, ports in {"small": {7001, 7002}, "adapter": {7002}, "large": {7003}}.items():
            answers = ask(host, *[completion(model) for _ in range(6)])
            assert {answer["status"] for answer in answers} == {200}
            first = [json.loads(answer["text"].split("\n")[0].removeprefix("data: ")) for answer in answers]
            assert {found["port"] for found in first} == ports


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"model": "gpt-4"}, 404, "this key may use: adapter, large, small"),
        ({"prompt": "a"}, 400, "no 'model'"),
        ({"model": 5}, 400, "no 'model'"),
        ("[1", 400, "not a JSON object"),
        ('"text"', 400, "not a JSON object"),
        ("", 400, "no body"),
    ],
)
def test_a_body_without_a_known_model_reaches_no_engine(host: Host, body: object, status: int, word: str) -> None:
    (answer,) = ask(host, request("POST", "/v1/completions", body))
    assert answer["status"] == status
    assert word in error(answer)["message"]


def test_no_encoding_of_a_path_and_no_other_method_reaches_an_engine(host: Host) -> None:
    body = {"model": "small"}
    with engines(host):
        wrong = [
            *(request(method, path, body) for method, path in itertools.product(METHODS, ENCODINGS)),
            *(request(method, "/v1/completions", body) for method in METHODS if method != "POST"),
        ]
        answers = ask(host, *wrong)
        assert seen(host) == []
        assert ask(host, completion())[0]["status"] == 200
        assert [path for _, _, path, _ in seen(host)] == ["/v1/completions"], "the control is seen"
    assert {answer["status"] for answer in answers} <= {400, 404, 405}
    assert all(error(answer)["message"] for answer in answers)


def test_no_stream_breaks_when_nginx_reads_its_configuration_ten_times(host: Host) -> None:
    with engines(host):
        with in_flight(host, [completion(max_tokens=30, pause=1) for _ in range(300)]) as answers:
            for _ in range(10):
                host.check_output("systemctl reload nginx")
                time.sleep(1)
        assert [answer for answer in answers if "broken" in answer or answer["status"] != 200] == []


def test_streams_end_before_nginx_stops(host: Host) -> None:
    with engines(host):
        with in_flight(host, [completion(max_tokens=12, pause=1) for _ in range(50)]) as answers:
            host.check_output("systemctl restart nginx")
        assert [answer for answer in answers if "broken" in answer] == []


def test_the_way_that_debian_stops_nginx_does_break_streams(host: Host) -> None:
    """The control: what the tests above call whole would have been noticed broken."""
    with engines(host):
        with in_flight(host, [completion(max_tokens=12, pause=1) for _ in range(50)]) as answers:
            host.check_output("start-stop-daemon --quiet --stop --retry QUIT/2/TERM/5 --pidfile /run/nginx.pid")
        assert all("broken" in answer for answer in answers)
    time.sleep(2)
    assert host.service("nginx").is_running


def test_an_instance_out_of_rotation_gets_nothing_new_and_ends_its_streams(host: Host, play: Play) -> None:
    with engines(host):
        with in_flight(host, [completion(max_tokens=40, pause=1) for _ in range(20)]) as answers:
            host.check_output("rm /run/engines; touch /run/engines")
            out = play("molecule/nginx/converge.yml", {"nginx_drain": ["gpu1:a"]}, "--tags", "nginx")
            assert out.returncode == 0, out.stdout
            streams = host.check_output("ss --tcp --numeric --no-header state established dst = 127.0.0.1:7001")
            assert streams == "", "the play waited for the streams of the drained instance"
            assert {answer["status"] for answer in ask(host, *[completion() for _ in range(10)])} == {200}
            assert {port for port, *_ in seen(host)} == {7002}
        assert [answer for answer in answers if "broken" in answer] == []
        again = play("molecule/nginx/converge.yml", {}, "--tags", "nginx")
        assert "changed=0" in again.stdout, "what is drained stays so until it is undrained"
        back = play("molecule/nginx/converge.yml", {"nginx_undrain": ["gpu1"]}, "--tags", "nginx")
        assert back.returncode == 0, back.stdout
        ask(host, *[completion() for _ in range(10)])
        assert {port for port, *_ in seen(host)} == {7001, 7002}
