"""The probe against a stand-in of an engine on a Unix socket, and a stand-in of systemctl. No vLLM takes part."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.programs import vllm_probe as probe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROXY = "vllm-proxy@a.socket vllm-proxy@a.service"
STARVED = "some avg10=83.10 avg60=40.02 avg300=9.77 total=5577\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
RESTED = "some avg10=0.42 avg60=90.00 avg300=90.00 total=5577\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
DIGEST = "0123456789"
GROUP = "/system.slice/system-vllm.slice/vllm@a.service"
KILLED = [f"kill --signal=SIGKILL vllm@a.{DIGEST}.service", f"restart --no-block vllm@a.{DIGEST}.service"]


class StandIn(socketserver.ThreadingUnixStreamServer):
    """Speaks the part of vLLM's API that the probe asks for: one token, the echoed prompt, the page of metrics."""

    daemon_threads = True
    status = 200
    tokens: int | None = 1
    silent = False
    moving = False
    deaf = False
    prefilling = False
    load = 0
    ranks = 0  # requests of a second engine, which never moves; 0: there is none
    iterations = 5
    usage = 0.25
    logprobs: tuple[float | None, ...] = (None, -2.0, -3.0)
    golden_asked = 0

    def handle_error(self, *_: Any) -> None:
        """A client that went away is what half of these tests are about."""

    def metrics(self) -> str:
        self.iterations += self.moving
        self.usage += 0.01 * self.prefilling
        rank = 'vllm:iteration_tokens_total_count{engine="1",model_name="m"} 5.0\n' if self.ranks else ""
        return (
            f'vllm:iteration_tokens_total_count{{engine="0",model_name="m"}} {self.iterations}.0\n'
            f'vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} {self.usage}\n'
            f'vllm:num_requests_running{{engine="0",model_name="m"}} {self.load}.0\n'
            f"{rank}"
            f'vllm:num_requests_running{{engine="1",model_name="m"}} {self.ranks}.0\n'
        )

    def completion(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if isinstance(body["prompt"], list):
            self.golden_asked += 1
            last, *others = self.logprobs[::-1]
            after = {"a": last, **{f"b{n}": value for n, value in enumerate(others) if value is not None}}
            return self.status, {"choices": [{"logprobs": {"top_logprobs": [after]}} for _ in body["prompt"]]}
        if not body.get("echo"):
            return self.status, {"usage": self.tokens and {"completion_tokens": self.tokens}}
        self.golden_asked += 1
        tail = body["max_tokens"]
        found = {"tokens": ["a", "b", "c", *["x"] * tail], "token_logprobs": [*self.logprobs, *[-1.0] * tail]}
        return self.status, {"choices": [{"logprobs": found}]}


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        if self.server.deaf:
            time.sleep(2)
        self.answer(200, self.server.metrics().encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.silent:
            time.sleep(2)
        status, answer = self.server.completion(body)
        self.answer(status, json.dumps(answer).encode())

    def answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "probe"

    def log_message(self, *_: Any) -> None:
        """Nothing reads it."""


class Host:
    """What the probe finds and does on its host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unit = "active"
        self.invocation = "one"
        self.group = GROUP
        self.did: list[str] = []
        (root / "metrics").mkdir()
        (root / "a.current").symlink_to(f"generations/{DIGEST}")
        self.configure()

    def configure(self, **more: Any) -> None:
        settings: dict[str, Any] = {
            "engine": str(self.root / "api.sock"),
            "model": "m",
            "steps": ["vllm:iteration_tokens_total_count", "vllm:kv_cache_usage_perc"],
            "probe_timeout_s": 0.3,
            "suspect_timeout_s": 0.2,
        }
        settings |= {"metrics_timeout_s": 0.3, "close_after_s": 0.4, "restart_after_s": 1.1, **more}
        (self.root / f"a.{DIGEST}.probe.json").write_text(json.dumps(settings))

    def systemctl(self, *words: str) -> str:
        if words[0] != "show":
            self.did.append(" ".join(words))
        started = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6) - 1_000_000
        rows = ("ActiveState", self.unit), ("InvocationID", self.invocation), ("ControlGroup", self.group)
        return "".join(f"{k}={v}\n" for k, v in (*rows, ("ExecMainStartTimestampMonotonic", started)))

    def press(self, text: str, group: str = GROUP) -> None:
        folder = self.root / f"cgroup{group}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.pressure").write_text(text)

    def check(self) -> dict[str, Any]:
        assert probe.main(["check", "a"]) == 0
        found: dict[str, Any] = json.loads((self.root / "a.json").read_text())
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.delenv("MAINPID", raising=False)
    monkeypatch.setattr(probe, "systemctl", made.systemctl)
    for constant, name in (
        ("LIVE", "{}.current"),
        ("SETTINGS", "{}.{}.probe.json"),
        ("RECORD", "{}.json"),
        ("GOLDEN", "{}.golden.json"),
        ("DRAINED", "{}.drained"),
        ("CORRUPT", "{}.corrupt"),
        ("METRICS", "metrics"),
        ("PRESSURE", "cgroup{}/cpu.pressure"),
        ("CPU_TIME", "cgroup{}/cpu.stat"),
    ):
        monkeypatch.setattr(probe, constant, str(tmp_path / name))
    return made


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(str(tmp_path / "api.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_token_makes_it_ready(host: Host, engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    found = host.check()
    assert (found["state"], found["actions"], host.did) == ("ready", [], [])
    assert json.loads(capsys.readouterr().out) == found
    assert 'state="ready"} 1' in (host.root / "metrics" / "rackserve_instance_a.prom").read_text()
    assert engine.golden_asked == 0


def test_the_journal_gets_changes_only(
    host: Host, engine: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    host.check()
    assert "ready" in capsys.readouterr().out
    host.check()
    assert capsys.readouterr().out == ""
    engine.silent = True
    host.check()
    assert "hung" in capsys.readouterr().out


def until_killed(host: Host) -> list[str]:
    """Return the states of the probe runs until the engine is killed, twenty at most."""
    states: list[str] = []
    while KILLED[0] not in host.did and len(states) < 20:
        states.append(host.check()["state"])
    return states


@pytest.mark.parametrize("deaf", [False, True], ids=["its metrics stand still", "its metrics do not come"])
@pytest.mark.parametrize("load", [0, 1], ids=["idle", "with requests"])
def test_one_that_does_not_move_is_closed_then_killed(
    host: Host,
    engine: StandIn,
    load: int,
    deaf: bool,  # noqa: FBT001
) -> None:
    host.check()
    engine.silent, engine.deaf, engine.load = True, deaf, load
    assert set(until_killed(host)) == {"hung"}
    assert host.did == [f"stop {PROXY}", *KILLED]


def test_one_that_stands_still_for_the_time_of_a_step_is_left_alone(host: Host, engine: StandIn) -> None:
    host.configure(close_after_s=5.0, restart_after_s=5.0)
    engine.silent = True
    threading.Timer(0.6, setattr, (engine, "iterations", 6)).start()
    found = host.check()
    assert (found["state"], found["decisions"], host.did) == ("busy", {"skip_busy": 1}, [])
    assert 0.5 < found["seconds"] < 2


@pytest.mark.parametrize("moving", ["moving", "prefilling"])
def test_one_that_steps_is_left_alone(host: Host, engine: StandIn, moving: str) -> None:
    """A step of a prefill makes no token: the counters stand still, and the KV cache fills."""
    engine.silent, engine.load = True, 1
    setattr(engine, moving, True)
    assert [host.check()["state"] for _ in range(5)] == ["busy"] * 5
    assert host.did == []


def test_one_that_moved_between_two_probe_runs_is_not_restarted(host: Host, engine: StandIn) -> None:
    engine.silent, engine.load = True, 1
    for _ in range(5):
        engine.iterations += 1
        host.check()
    assert not set(KILLED) & set(host.did)


def test_a_rank_that_stands_still_beside_one_that_answers(host: Host, engine: StandIn) -> None:
    engine.ranks, engine.moving = 2, True
    assert host.check()["state"] == "ready"
    time.sleep(1.2)
    assert (until_killed(host), host.did) == (["hung"], [f"stop {PROXY}", *KILLED])


def test_a_rank_without_requests_may_stand_still(host: Host, engine: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.moving = True
    page = engine.metrics
    idle = 'vllm:iteration_tokens_total_count{engine="1",model_name="m"} 5.0\n'
    monkeypatch.setattr(engine, "metrics", lambda: page() + idle)
    host.check()
    time.sleep(1.2)
    assert (host.check()["state"], host.did) == ("ready", [])


def test_one_that_refuses_because_it_is_full_is_left_alone(host: Host, engine: StandIn) -> None:
    engine.status, engine.moving = 503, True
    assert "HTTP 503" in host.check()["detail"]
    assert host.did == []


def test_one_that_waits_for_a_cpu_is_left_alone(host: Host, engine: StandIn) -> None:
    host.press(STARVED)
    engine.silent = True
    found = [host.check() for _ in range(4)]
    assert {(row["state"], row["detail"].partition("; ")[2]) for row in found} == {
        ("busy", "it waits for a CPU 83 % of the time")
    }
    assert host.did == []
    assert 'decision="skip_busy"} 4' in (host.root / "metrics" / "rackserve_instance_a.prom").read_text()


def test_one_that_waits_for_a_cpu_is_not_skipped_for_ever(
    host: Host, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_CPU_EXCUSE_S", 1.0)
    host.press(STARVED)
    engine.silent = True
    assert until_killed(host)[:2] == ["busy", "busy"]
    assert host.did == [f"stop {PROXY}", *KILLED]


@pytest.mark.parametrize("text", [None, "", "some\n", "some avg10=\n", "full avg10", RESTED, "some avg10=nan total=1"])
def test_one_that_is_not_known_to_wait_for_a_cpu_is_hung(host: Host, engine: StandIn, text: str | None) -> None:
    if text is not None:
        host.press(text)
    engine.silent = True
    assert (host.check()["state"], host.did) == ("hung", [f"stop {PROXY}"])


@pytest.mark.parametrize(
    "case",
    [(True, 400_000, "busy"), (True, 100_000, "hung"), (False, 400_000, "hung")],
    ids=["a step on CPUs", "little of a CPU", "threads that spin beside a GPU"],
)
def test_one_whose_model_computes_on_cpus(
    host: Host,
    engine: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[bool, int, str],
) -> None:
    on_cpu, growth, state = case
    stat = host.root / f"cgroup{GROUP}" / "cpu.stat"
    host.press(RESTED)
    stat.write_text("usage_usec 0\nuser_usec 0\n")
    asked = probe.ask_token

    def ask(settings: probe.Settings, timeout: float) -> tuple[bool, int, str]:
        stat.write_text(f"usage_usec {growth}\nuser_usec 9\n")
        return asked(settings, timeout)

    monkeypatch.setattr(probe, "ask_token", ask)
    host.configure(computes_on_cpu=on_cpu)
    engine.silent = True
    found = host.check()
    assert (found["state"], "it computes" in found["detail"]) == (state, state == "busy")


def test_the_pressure_of_the_whole_host_is_not_the_engines(host: Host, engine: StandIn) -> None:
    host.press(STARVED, group="")
    host.group, engine.silent = "", True
    assert host.check()["state"] == "hung"


def test_an_error_is_no_want_of_a_cpu(host: Host, engine: StandIn) -> None:
    host.press(STARVED)
    engine.status = 500
    assert host.check()["state"] == "hung"


@pytest.mark.parametrize(
    "engines", [None, 3, [], {"0": {}}, {"0": {"steps": "a", "load": 0, "still_since": 1, "x": 1}}]
)
def test_engines_of_a_record_that_are_not_understood_are_begun_anew(
    host: Host, engine: StandIn, engines: object
) -> None:
    kept = host.check()
    (host.root / "a.json").write_text(json.dumps({**kept, "engines": engines}))
    engine.silent = True
    found = host.check()
    assert (found["state"], list(found["engines"])) == ("hung", ["0"])


@pytest.mark.parametrize("full", ["a.json.new", "metrics/rackserve_instance_a.prom.new", "a.golden.json.new"])
def test_a_full_disk_does_not_stop_it(
    host: Host, engine: StandIn, capsys: pytest.CaptureFixture[str], full: str
) -> None:
    """A folder in the place of a draft stands in for a disk that takes no file."""
    host.configure(golden_identity="m@1", golden_every_s=0)
    (host.root / full).mkdir()
    assert probe.main(["check", "a"]) == int("golden" not in full)
    assert f"{full.removesuffix('.new')} is not written" in capsys.readouterr().err
    engine.silent = True
    assert probe.main(["check", "a"]) == int("golden" not in full)
    assert host.did == [f"stop {PROXY}"]


def test_an_answer_without_a_token_is_none(host: Host, engine: StandIn) -> None:
    for engine.tokens in (0, 2, None):
        assert host.check()["state"] == "hung"


def test_it_is_opened_again_only_where_it_was_closed_and_is_not_drained(host: Host, engine: StandIn) -> None:
    engine.silent = True
    host.check()
    engine.silent = False
    (host.root / "a.drained").touch()
    assert host.check()["actions"] == []
    (host.root / "a.drained").unlink()
    assert host.check()["actions"] == ["open"]
    assert host.did == [f"stop {PROXY}", "start vllm-proxy@a.socket"]


def test_a_refused_connection(host: Host) -> None:
    assert host.check()["state"] == "starting"
    host.unit = "failed"
    assert host.check()["state"] == "failed"


def test_a_record_that_is_broken_or_from_another_release_is_begun_anew(host: Host, engine: StandIn) -> None:
    for text in ("{", "[]", '{"gone": 1, "state": "hung"}'):
        (host.root / "a.json").write_text(text)
        assert host.check()["state"] == "ready"
    assert engine.iterations == 5


def test_the_first_answer_is_kept_and_another_one_is_corrupt(host: Host, engine: StandIn) -> None:
    host.configure(golden_identity="m@1", golden_every_s=0)
    host.check()
    kept = json.loads((host.root / "a.golden.json").read_text())
    assert (kept["identity"], kept["tokens"], kept["logprobs"]) == ("m@1", ["a", "b", "c"], [0.0, -2.0, -3.0])
    assert host.check()["state"] == "ready"
    engine.logprobs = (None, -2.0, -3.5)
    engine.golden_asked = 0
    assert (host.check()["state"], engine.golden_asked) == ("corrupt", 2)
    assert host.did == [f"stop {PROXY}"]


def test_an_engine_with_adapters_is_not_asked_for_what_ends_it(host: Host, engine: StandIn) -> None:
    """`echo` would, beside another request; the next tokens are compared by value, whichever they are."""
    host.configure(golden_identity="m@1", golden_every_s=0, adapters=True)
    host.check()
    kept = json.loads((host.root / "a.golden.json").read_text())
    assert (kept["tokens"], kept["logprobs"]) == ([], [-2.0, -3.0] * 5)
    engine.logprobs = (None, -3.1, -2.1)
    assert host.check()["state"] == "ready"
    engine.logprobs = (None, -2.0, -3.5)
    assert host.check()["state"] == "corrupt"


def test_an_engine_with_adapters_that_answers_an_error_is_corrupt(
    host: Host, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.configure(golden_identity="m@1", golden_every_s=0, adapters=True)
    host.check()
    asked = engine.completion

    def refused(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return (400, {}) if isinstance(body["prompt"], list) else asked(body)

    monkeypatch.setattr(engine, "completion", refused)
    assert host.check()["state"] == "corrupt"


def test_an_answer_that_was_an_error_is_another_one(host: Host, engine: StandIn) -> None:
    host.configure(golden_identity="m@1", golden_every_s=0)
    host.check()
    engine.logprobs = (None, float("nan"), 0.0)
    assert host.check()["state"] == "corrupt"


def test_a_difference_that_does_not_come_twice_is_none(
    host: Host, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.configure(golden_identity="m@1", golden_every_s=0)
    host.check()
    asked = engine.completion

    def first_wrong(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        engine.logprobs = (None, -9.0, -9.0) if engine.golden_asked == 2 else (None, -2.0, -3.0)
        return asked(body)

    monkeypatch.setattr(engine, "completion", first_wrong)
    assert host.check()["state"] == "ready"
    assert engine.golden_asked == 4


def test_another_model_is_not_compared_with_this_one(host: Host, engine: StandIn) -> None:
    host.configure(golden_identity="m@1", golden_every_s=0)
    host.check()
    host.configure(golden_identity="m@2", golden_every_s=0)
    engine.logprobs = (None, -7.0, -7.0)
    assert host.check()["state"] == "ready"
    assert json.loads((host.root / "a.golden.json").read_text())["identity"] == "m@2"


def test_a_busy_engine_is_not_asked_for_the_golden_answer(host: Host, engine: StandIn) -> None:
    host.configure(golden_identity="m@1", golden_every_s=0)
    engine.load = 1
    host.check()
    assert (engine.golden_asked, (host.root / "a.golden.json").exists()) == (0, False)


def test_wait_ends_with_the_first_token(host: Host, engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["wait", f"a.{DIGEST}"]) == 0
    assert "generated its first token" in capsys.readouterr().out
    assert not (host.root / f"a.{DIGEST}.corrupt").exists()
    assert engine.golden_asked == 0


def test_wait_keeps_wrong_weights_closed_and_the_check_stands_by_it(host: Host, engine: StandIn) -> None:
    host.configure(golden_identity="m@1")
    host.check()
    engine.logprobs = (None, -9.0, -9.0)
    assert probe.main(["wait", f"a.{DIGEST}"]) == 0
    assert (host.root / f"a.{DIGEST}.corrupt").exists()
    host.invocation = "two"
    assert host.check()["state"] == "corrupt"


def test_wait_notices_that_the_engine_ended(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    monkeypatch.setenv("MAINPID", str(ended.pid))
    assert probe.main(["wait", f"a.{DIGEST}"]) == 1
    assert "vllm@a ended before its first token" in capsys.readouterr().err
    assert host.did == []


def test_wait_waits_while_the_engine_lives(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAINPID", str(os.getpid()))
    server = []

    def begin(_: float) -> None:
        server.append(StandIn(str(tmp_path / "api.sock"), Handler))
        threading.Thread(target=server[0].serve_forever, kwargs={"poll_interval": 0.01}).start()

    monkeypatch.setattr("time.sleep", begin)
    assert probe.main(["wait", f"a.{DIGEST}"]) == 0
    server[0].shutdown()
    server[0].server_close()
    assert len(server) == 1
    assert host.did == []


def test_wait_refuses_a_wrong_name_at_once(host: Host, engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    engine.status = 404
    assert probe.main(["wait", f"a.{DIGEST}"]) == 1
    assert "does not serve 'm': HTTP 404" in capsys.readouterr().err
    assert host.did == []


@pytest.mark.parametrize(
    "text", ["{", '{"engine": "x"}', '{"engine": "x", "model": "m", "steps": [], "typo": 1}', "[1]"]
)
def test_settings_that_cannot_be_used_are_named(host: Host, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (host.root / f"a.{DIGEST}.probe.json").write_text(text)
    with pytest.raises(SystemExit) as ended:
        probe.main(["check", "a"])
    assert ended.value.code == 2
    assert f"a.{DIGEST}.probe.json cannot be used" in capsys.readouterr().err


def test_it_runs_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", probe.__file__], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "usage: vllm_probe.py check NAME, or wait|open|close NAME.DIGEST\n")
