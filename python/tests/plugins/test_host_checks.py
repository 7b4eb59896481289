"""The module's judges, and its checks against a small server with good and bad answers."""

from __future__ import annotations

import ast
import json
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.ansible.module_utils import rackserve_judges as judges
from rackserve.ansible.modules import host_checks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

MODELS = json.dumps({"data": [{"id": "smollm2"}]})
PARIS = json.dumps({"choices": [{"message": {"content": "Paris."}}]})
METRICS = '# HELP x\nvllm:num_requests_running{engine="0"} 1.0\nvllm:generation_tokens_total{a="b c"} 20 1700000000\n'
ASK = {"name": "chat", "model": "smollm2", "prompt": "?", "expect": "Paris"}


def test_marks_of_drained_instances_tell_since_when(tmp_path: Path) -> None:
    check = {"name": "rotation", "kind": "rotation", "state": str(tmp_path / "rotation.json")}
    assert host_checks.run_check(check)["data"] == {"marks": {}}
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    mark = {"label": "gpu1:a", "by": "rollout", "run": "r1", "weight": 5, "since": since}
    (tmp_path / "rotation.json").write_text(json.dumps({"marks": [{**mark, "by": "operator", "weight": 50}, mark]}))
    found = host_checks.run_check(check)["data"]["marks"]["gpu1:a"]
    assert 60 <= found.pop("seconds") < 70
    assert found == {"by": "rollout", "run": "r1", "weight": 5}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "rotation.json is not readable"),
        ('{"marks": [%s]}', "has the time 'yesterday'; write it as 2027-01-31T12"),
    ],
)
def test_a_rotation_that_cannot_be_read_is_a_failed_check(tmp_path: Path, text: str, reason: str) -> None:
    mark = {"label": "gpu1:a", "by": "rollout", "run": "r1", "weight": 5, "since": "yesterday"}
    (tmp_path / "rotation.json").write_text(text.replace("%s", json.dumps(mark)))
    found = host_checks.run_check({"name": "rotation", "kind": "rotation", "state": str(tmp_path / "rotation.json")})
    assert (found["ok"], reason in found["detail"]) == (False, True)


def sse(*contents: str, end: str = "data: [DONE]\n\n") -> str:
    chunks = [json.dumps({"choices": [{"delta": {"content": text}}]}) for text in contents]
    return "".join(f"data: {chunk}\n\n" for chunk in chunks) + end


@contextmanager
def serving(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: Any) -> None:
            pass

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked = json.loads(self.rfile.read(length)) if length else {}
            key = f"{self.path}?stream" if asked.get("stream") else self.path
            status, text = answers.get(key, (404, "{}"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("module", [host_checks, judges])
def test_the_module_is_python_3_9(module: ModuleType) -> None:
    ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"), feature_version=(3, 9))


@pytest.mark.parametrize(
    ("status", "body", "ok", "word"),
    [
        (200, MODELS, True, "lists smollm2"),
        (200, '{"data": [{"id": "other"}]}', False, "does not list smollm2; it lists other"),
        (200, '{"data": []}', False, "it lists nothing"),
        (200, "<html>", False, "not a list of models"),
        (503, "busy", False, "HTTP 503: busy"),
    ],
)
def test_models(status: int, body: str, ok: bool, word: str) -> None:  # noqa: FBT001
    with serving({"/v1/models": (status, body)}) as url:
        found = host_checks.run_check({"name": "models", "kind": "models", "url": url, "served": ["smollm2"]})
    assert (found["ok"], word in found["detail"]) == (ok, True), found


@pytest.mark.parametrize(
    ("status", "body", "expect", "ok"),
    [
        (200, PARIS, "Paris", True),
        (200, PARIS, "Rome", False),
        (200, PARIS, "", True),
        (200, '{"choices": [{"message": {"content": " "}}]}', "", False),
        (200, '{"choices": [{"message": {"content": null}}]}', "Paris", False),
        (200, '{"choices": []}', "Paris", False),
        (200, "{", "Paris", False),
        (500, PARIS, "Paris", False),
    ],
)
def test_chat(status: int, body: str, expect: str, ok: bool) -> None:  # noqa: FBT001
    with serving({"/v1/chat/completions": (status, body)}) as url:
        found = host_checks.run_check({**ASK, "kind": "chat", "url": url, "expect": expect})
    assert found["ok"] is ok, found


@pytest.mark.parametrize(
    ("body", "ok", "word"),
    [
        (sse("Par", "is"), True, "2 chunks"),
        (sse("Paris"), False, "1 chunks with content, at least 2"),
        (sse("Par", "is", end=""), False, "without [DONE]"),
        (sse("Ro", "me"), False, "does not contain 'Paris'"),
        (sse("Par", "is", end='data: {"error": {"message": "engine died"}}\n\ndata: [DONE]\n\n'), False, "engine died"),
        (sse("Par", "is", end="data: {oops\n\n"), False, "not a chat chunk"),
        (PARIS, False, "0 chunks"),
    ],
)
def test_stream(body: str, ok: bool, word: str) -> None:  # noqa: FBT001
    with serving({"/v1/chat/completions?stream": (200, body)}) as url:
        found = host_checks.run_check({**ASK, "kind": "stream", "url": url})
    assert (found["ok"], word in found["detail"]) == (ok, True), found


def test_a_stream_refused_by_status_fails() -> None:
    assert not judges.judge_stream(429, sse("Par", "is"), "Paris")[0]


@pytest.mark.parametrize(
    ("status", "body", "ok"),
    [(200, METRICS, True), (200, "# HELP vllm:num_requests_running\n", False), (404, METRICS, False)],
)
def test_metrics(status: int, body: str, ok: bool) -> None:  # noqa: FBT001
    names = ["vllm:num_requests_running", "vllm:generation_tokens_total"]
    with serving({"/metrics": (status, body)}) as url:
        found = host_checks.run_check({"name": "m", "kind": "metrics", "url": f"{url}/metrics", "names": names})
    assert found["ok"] is ok, found


def test_metrics_are_summed_over_labels() -> None:
    text = 'a{x="1"} 1\na{x="} 2"} 2\nb 3\nc NaN\nbroken\n'
    parsed = judges.parse_metrics(text)
    assert (parsed["a"], parsed["b"]) == (3.0, 3.0)
    assert "broken" not in parsed


def targets(*rows: tuple[str, str]) -> str:
    active = [{"scrapeUrl": f"http://{at}/metrics", "health": health, "lastError": ""} for at, health in rows]
    return json.dumps({"data": {"activeTargets": active}})


@pytest.mark.parametrize(
    ("body", "ok", "word"),
    [
        (targets(("10.0.0.1:8000", "up"), ("localhost:9100", "up")), True, "2 targets up"),
        (targets(("10.0.0.1:8000", "down"), ("localhost:9100", "up")), False, "is down"),
        (targets(("10.0.0.1:8000", "unknown"), ("localhost:9100", "up")), False, "is unknown"),
        (targets(("localhost:9100", "up")), False, "not scraped: 10.0.0.1:8000"),
        (targets(), False, "not scraped"),
        ("[]", False, "not an answer of Prometheus"),
    ],
)
def test_targets(monkeypatch: pytest.MonkeyPatch, body: str, ok: bool, word: str) -> None:  # noqa: FBT001
    monkeypatch.setattr(host_checks, "FIRST_SCRAPE_S", 1)
    expected = [["10.0.0.1:8000"], ["10.0.0.9:9100", "localhost:9100"]]
    with serving({"/api/v1/targets": (200, body)}) as url:
        found = host_checks.run_check({"name": "t", "kind": "targets", "url": url, "expected": expected})
    assert (found["ok"], word in found["detail"]) == (ok, True), found


def test_a_target_that_was_not_asked_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[], [("localhost:9100", "unknown")], [("localhost:9100", "up")]]
    answers = [(200, targets(*row)) for row in rows]
    monkeypatch.setattr(host_checks, "fetch", lambda _url: answers.pop(0))
    monkeypatch.setattr("rackserve.ansible.modules.host_checks.time.sleep", lambda _seconds: None)
    found = host_checks.check_targets({"url": "http://p", "expected": [["localhost:9100"]]})
    assert (found, answers) == ((True, "1 targets up"), [])


@pytest.mark.parametrize(
    ("interval", "health", "ok"),
    [("1m30s", "unknown", True), ("15s", "unknown", False), ("900ms", "unknown", False), ("1m30s", "down", False)],
)
def test_a_target_that_is_scraped_rarely_may_await_its_first_scrape(interval: str, health: str, *, ok: bool) -> None:
    row = {"scrapeUrl": "http://pdu:9116/snmp", "health": health, "lastError": "", "scrapeInterval": interval}
    body = json.dumps({"data": {"activeTargets": [row]}})
    assert judges.judge_targets(200, body, [])[0] is ok


def test_prometheus_without_any_target_fails() -> None:
    assert not judges.judge_targets(200, targets(), [])[0]


@pytest.mark.parametrize(
    ("shown", "ok", "state"),
    [
        ("LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=2\n", True, "active"),
        ("LoadState=loaded\nActiveState=failed\nSubState=failed\nNRestarts=5\n", False, "failed"),
        ("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\n", False, "activating"),
        ("LoadState=not-found\nActiveState=inactive\n", False, "absent"),
        ("", False, "absent"),
    ],
)
def test_unit(monkeypatch: pytest.MonkeyPatch, shown: str, ok: bool, state: str) -> None:  # noqa: FBT001
    monkeypatch.setattr(host_checks, "_show_unit", lambda _unit: shown)
    found = host_checks.run_check({"name": "u", "kind": "unit", "unit": "x.service"})
    assert found["ok"] is ok, found
    assert judges.unit_state(shown) == state


def test_runtime(tmp_path: Path) -> None:
    current = tmp_path / "current"
    check = {"name": "runtime", "kind": "runtime", "current": str(current), "stamp": ".done"}
    assert not host_checks.run_check(check)["ok"]
    current.symlink_to(tmp_path / "releases" / "1.0")
    assert "does not lead" in host_checks.run_check(check)["detail"]
    (tmp_path / "releases" / "1.0").mkdir(parents=True)
    assert "is not complete" in host_checks.run_check(check)["detail"]
    (tmp_path / "releases" / "1.0" / ".done").touch()
    assert host_checks.run_check(check) == {"name": "runtime", "ok": True, "detail": "release 1.0"}


ROUTE_HEAD = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
LAN = "eth0 0000590A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
V4_DEFAULT = "eth0 00000000 0100590A 0003 0 0 0 00000000 0 0 0\n"
ZEROS = "0" * 32
V6_DEFAULT = f"{ZEROS} 00 {ZEROS} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n"
V6_LO = f"{ZEROS} 00 {ZEROS} 00 {ZEROS} ffffffff 00000001 00000000 00200200       lo\n"


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "found"),
    [
        (ROUTE_HEAD + LAN, V6_LO, []),
        ("", "", []),
        (ROUTE_HEAD + LAN + V4_DEFAULT, V6_LO, ["eth0 (IPv4)"]),
        (ROUTE_HEAD, V6_DEFAULT, ["eth0 (IPv6)"]),
    ],
)
def test_default_routes(ipv4: str, ipv6: str, found: list[str]) -> None:
    assert judges.find_default_routes(ipv4, ipv6) == found


def test_a_default_route_fails_and_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_checks, "_read", lambda path: ROUTE_HEAD + V4_DEFAULT if path.endswith("/route") else "")
    found = host_checks.run_check({"name": "r", "kind": "no_default_route"})
    assert not found["ok"]
    assert "stack_verify_no_default_route" in found["detail"]


def test_a_refused_connection_is_a_failed_check_that_names_the_address() -> None:
    with serving({}) as url:
        pass
    found = host_checks.run_check({"name": "models", "kind": "models", "url": url, "served": ["x"]})
    assert not found["ok"]
    assert url in found["detail"]


@pytest.mark.parametrize(
    ("kind", "path", "status", "body", "ok"),
    [
        ("embed", "/v1/embeddings", 200, {"data": [{"embedding": [0.5, -0.1]}]}, True),
        ("embed", "/v1/embeddings", 200, {"data": [{"embedding": [0.0, 0.0]}]}, False),
        ("embed", "/v1/embeddings", 200, {"data": []}, False),
        ("embed", "/v1/embeddings", 404, {}, False),
        ("score", "/v1/score", 200, {"data": [{"score": 0.9}]}, True),
        ("score", "/v1/score", 200, {"data": [{"score": None}]}, False),
    ],
)
def test_what_does_not_generate(kind: str, path: str, status: int, body: object, ok: bool) -> None:  # noqa: FBT001
    with serving({path: (status, json.dumps(body))}) as url:
        assert host_checks.run_check({**ASK, "kind": kind, "url": url})["ok"] is ok


@pytest.mark.parametrize("check", [{"name": "x", "kind": "nonsense"}, {"name": "x", "kind": "chat"}, {}])
def test_a_check_that_makes_no_sense_fails(check: dict[str, Any]) -> None:
    assert host_checks.run_check(check)["ok"] is False


def test_an_unplanned_check_always_fails() -> None:
    found = host_checks.run_check({"name": "instances", "kind": "unplanned", "detail": "why"})
    assert found == {"name": "instances", "ok": False, "detail": "why"}


STATUS = {
    "name": "status a",
    "kind": "status",
    "instance": "a",
    "unit": "u",
    "gpus": [],
    "current": "/x",
    "stamp": "y",
    "record": "/nowhere",
}
PROBED = {"state": "ready", "since": 900.0, "last_token": 990.0, "checked": 990.0, "decisions": {"restart": 2}}
UNIT_UP = "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=0\n"


def test_status_of_an_answering_instance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = tmp_path / "a.json"
    record.write_text(json.dumps({**PROBED, "checked": time.time()}))
    monkeypatch.setattr(host_checks, "_show_unit", lambda _unit: UNIT_UP)
    monkeypatch.setattr(host_checks, "_list_devices", lambda: "0, NVIDIA H200\n1, NVIDIA H200\n")
    monkeypatch.setattr(host_checks, "SAMPLE_PAUSE_S", 0)
    with serving({"/metrics": (200, METRICS)}) as url:
        found = host_checks.run_check({**STATUS, "url": url, "gpus": ["1"], "record": str(record)})
    assert found["ok"]
    assert found["data"]["state"] == "answering"
    assert found["data"]["device"] == "1 NVIDIA H200"
    assert (found["data"]["running"], found["data"]["tokens_per_s"], found["data"]["release"]) == (1.0, 0.0, None)


@pytest.mark.parametrize(
    ("shown", "state"), [(UNIT_UP, "starting"), ("LoadState=loaded\nActiveState=failed\n", "failed"), ("", "absent")]
)
def test_status_of_an_instance_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, shown: str, state: str) -> None:
    monkeypatch.setattr(host_checks, "_show_unit", lambda _unit: shown)
    with serving({}) as url:
        pass
    found = host_checks.run_check({**STATUS, "url": url})
    assert not found["ok"]
    assert found["data"]["state"] == state


def test_status_of_an_instance_without_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_checks, "_show_unit", lambda _unit: UNIT_UP)
    monkeypatch.setattr(host_checks, "SAMPLE_PAUSE_S", 0)
    with serving({"/metrics": (200, METRICS)}) as url:
        found = host_checks.run_check({**STATUS, "url": url})
    assert (found["ok"], found["data"]["state"]) == (False, "answering")
    assert found["detail"].endswith("its probe says nothing")


def test_the_record_of_the_probe() -> None:
    assert judges.summarize_health(json.dumps(PROBED), 1000.0) == {
        "health": "ready",
        "health_for_s": 100.0,
        "last_token_age_s": 10.0,
        "probe_restarts": 2,
    }
    assert judges.summarize_health(json.dumps(PROBED), 1100.0)["health"] == "stale"
    assert judges.summarize_health(json.dumps({**PROBED, "last_token": 0}), 1000.0)["last_token_age_s"] is None


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"state": "ready", "since": null}'])
def test_a_record_that_says_nothing(record: str) -> None:
    assert set(judges.summarize_health(record, 1.0).values()) == {None}


def test_load_figures() -> None:
    tokens = "vllm:generation_tokens_total"
    assert judges.summarize_status(f"{tokens} 10", f"{tokens} 30", 2.0)["tokens_per_s"] == 10.0
    assert judges.summarize_status(f"{tokens} 100", f"{tokens} 8", 1.0)["tokens_per_s"] == 8.0
    assert judges.summarize_status("", "vllm:gpu_cache_usage_perc 0.5", 1.0)["kv_use"] == 0.5
    assert judges.summarize_status("", "", 1.0)["tokens_per_s"] is None


def test_device_names() -> None:
    listed = "0, NVIDIA L4\n1, NVIDIA L4\n"
    assert judges.name_device(["0"], "") == "cpu"
    assert judges.name_device([], listed) == "0 NVIDIA L4; 1 NVIDIA L4"
    assert judges.name_device(["3"], listed) == "3 missing"
    whole = "0, NVIDIA L4, GPU-AA-1, 00000000:3B:00.0\n1, NVIDIA L4, GPU-bb-2, 00010000:86:00.0\n"
    noise = "Unable to determine the device handle for GPU0000:99:00.0: GPU is lost.\n"
    assert judges.name_device(["GPU-aa-1"], noise + whole) == "0 NVIDIA L4"
    assert judges.name_device(["0000:3b:00.0", "1"], whole) == "0 NVIDIA L4; 1 NVIDIA L4"
    assert judges.name_device(["MIG-1"], whole) == "MIG-1"
    assert judges.name_device(["GPU-cc"], whole) == "GPU-cc missing"
    assert judges.name_device([], noise + whole) == "0 NVIDIA L4; 1 NVIDIA L4"
    assert judges.name_device(["0"], noise) == "cpu"


@pytest.mark.parametrize("failure", [OSError("no"), subprocess.TimeoutExpired("nvidia-smi", 5)])
def test_a_driver_that_does_not_come_back_costs_the_name_only(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def run(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(subprocess, "run", run)
    assert host_checks._list_devices() == ""
