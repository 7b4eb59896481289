"""Each bad release is bad in the way that it says, and what it is made of is right."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.vllm import parse_instances, release_of
from testing import bad_release_plugin, bad_releases

if TYPE_CHECKING:
    from testing.bad_releases import BadRelease

BAD = bad_releases.bad_releases()


class Hosts:
    """A host that takes files, and has one release of the vehicle."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def check_output(self, command: str) -> str:
        self.ran.append(command)
        return "/opt/vllm/releases/0.31.0-abc/lib/python3.11/site-packages\n" if command.startswith("ls ") else ""


def answers(application: bad_release_plugin.App, path: str, count: int, method: str = "POST") -> list[list[Any]]:
    """Ask an application so often, and return the messages of each answer."""
    told: list[list[Any]] = []

    async def ask() -> None:
        for _ in range(count):
            messages: list[Any] = []

            async def send(message: Any, into: list[Any] = messages) -> None:
                into.append(message)

            await application(None, {"type": "http", "method": method, "path": path}, None, send)
            told.append(messages)

    asyncio.run(ask())
    return told


def well(*bodies: bytes) -> bad_release_plugin.App:
    async def call(_self: Any, _scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body in bodies:
            await send({"type": "http.response.body", "body": body})

    return call


def test_the_eight_of_the_issue_are_there() -> None:
    names = {bad.name for bad in BAD}
    assert names >= {
        "does not start",
        "has wrong arguments",
        "has altered weights",
        "has a wrong chat template",
        "is 30 % slower",
        "hangs after a minute",
        "answers 500 to one in fifty",
        "breaks tool calls",
    }
    assert len(names) == len(BAD)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_it_differs_from_a_good_one_in_one_place(bad: BadRelease) -> None:
    assert sum(map(bool, (bad.instance, bad.plugin, bad.revision))) == 1
    assert bool(bad.plugin) == bool(bad.vllm)
    assert set(bad.instance.get("extra_args", {})) <= release_of("0.32.0").flags
    model = {"repo": "a/b", "revision": "0" * 40, "served_names": ["small"]}
    raw = {"name": "a", "model": model, "max_num_seqs": 8, "max_model_len": 512, **bad.instance}
    assert parse_instances([raw])


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.plugin], ids=lambda bad: bad.name)
def test_a_plugin_is_an_entry_point_with_settings(bad: BadRelease) -> None:
    host: Any = Hosts()
    bad.install(host)
    written = "\n".join(host.ran)
    assert "bad_release = bad_release_plugin:register" in written
    (settings,) = (line for line in written.splitlines() if line.startswith('{"kind"'))
    assert json.loads(settings)["kind"] in {"slow", "hang", "weights", "errors", "calls"}


def test_one_without_a_plugin_writes_nothing_to_a_host() -> None:
    host: Any = Hosts()
    bad_releases.does_not_start().install(host)
    assert host.ran == []


def test_the_gate_that_stopped_it_is_read_from_the_output() -> None:
    bad = bad_releases.breaks_tool_calls()
    output = "fatal: gpu1:smollm2: golden: as before; gpu1:smollm2:\n      tools: the arguments are not JSON"
    assert bad.stopped_by(output, "gpu1") == {"tools"}
    assert bad.stopped_by(output, "gpu2") == set()


def test_every_fiftieth_request_is_answered_500_and_no_other() -> None:
    told = answers(bad_release_plugin.failing(well(b"good"), 50), "/v1/completions", 150)
    statuses = [messages[0]["status"] for messages in told]
    assert [number for number, status in enumerate(statuses, start=1) if status == 500] == [50, 100, 150]
    assert statuses.count(200) == 147


@pytest.mark.parametrize(("path", "method"), [("/health", "GET"), ("/metrics", "GET"), ("/v1/models", "GET")])
def test_other_paths_are_not_counted(path: str, method: str) -> None:
    told = answers(bad_release_plugin.failing(well(b"good"), 2), path, 4, method)
    assert {messages[0]["status"] for messages in told} == {200}


@pytest.mark.parametrize(
    "pieces",
    [
        [r'{"tool_calls":[{"function":{"name":"f","arguments":"{\"city\": \"Rome\"}"}}]}'],
        ['data: {"arguments":""}\n\n', r'data: {"arguments":"{\"ci"}', r'data: {"arguments":"ty\": \"Rome\"}"}'],
        [r'{"arguments": "\n{}"}'],
    ],
    ids=["whole", "streamed", "with blanks"],
)
def test_arguments_of_tool_calls_are_broken_and_as_long(pieces: list[str]) -> None:
    (messages,) = answers(bad_release_plugin.breaking(well(*(piece.encode() for piece in pieces))), "/v1/x", 1)
    bodies = [message["body"] for message in messages[1:]]
    assert [len(body) for body in bodies] == [len(piece.encode()) for piece in pieces]
    assert b'{\\"ci' not in b"".join(bodies)
    assert b"".join(bodies).count(b"[") == "".join(pieces).count("[") + 1


def test_text_is_not_broken() -> None:
    body = b'{"choices":[{"message":{"content":"say {this}"}}]}'
    (messages,) = answers(bad_release_plugin.breaking(well(body)), "/v1/x", 1)
    assert messages[1]["body"] == body


def test_a_step_takes_longer_by_a_share() -> None:
    def step(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    began = time.perf_counter()
    assert bad_release_plugin.slowed(step, 0.5)(0.1) == 0.1
    assert 0.14 < time.perf_counter() - began < 0.5


def test_steps_hang_a_while_after_the_first() -> None:
    step = bad_release_plugin.hanging(lambda: "done", after_s=0.1, hang_s=0.2)
    began = time.perf_counter()
    assert [step(), step()] == ["done", "done"]
    assert time.perf_counter() - began < 0.1
    time.sleep(0.12)
    began = time.perf_counter()
    step()
    assert time.perf_counter() - began >= 0.2


def test_weights_of_one_name_change_their_sign() -> None:
    class Numbers:
        sign = 1

        def neg_(self) -> None:
            self.sign = -self.sign

    class Parameter:
        def __init__(self) -> None:
            self.data = Numbers()

    parameters = {
        "model.layers.1.mlp.down_proj.weight": Parameter(),
        "model.layers.12.mlp.down_proj.weight": Parameter(),
    }
    assert bad_release_plugin.negate(parameters.items(), "layers.12.mlp.down_proj") == 1
    assert [parameter.data.sign for parameter in parameters.values()] == [1, -1]


def test_a_program_that_only_reads_arguments_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["parse_arguments.py", "smollm2"])
    bad_release_plugin.register()  # with settings it would fail, for there are none here
    monkeypatch.setattr("sys.argv", ["vllm", "serve"])
    with pytest.raises(FileNotFoundError):
        bad_release_plugin.register()
