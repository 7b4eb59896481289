"""The clients count what fails, each kind for its own reason, and nothing else."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackserve import pki
from testing import local_edge
from testing.traffic import Kind, Mix, Reason, Record, Target, read_records, run_clients, summarise, upstreams
from testing.traffic.__main__ import main
from testing.traffic.stand_in import FINGERPRINT, Fault, answer, serving

if TYPE_CHECKING:
    from collections.abc import Callable

ADAPTERS = ("lora-one", "lora-two")
EVERY = Mix("small", ADAPTERS)
# By fault: the reason of a streamed answer, and of a whole one; None where it is none.
REASONS: dict[Fault, tuple[str | None, str | None]] = {
    Fault.STATUS_503: ("HTTP 503", "HTTP 503"),
    Fault.STATUS_429: ("HTTP 429", "HTTP 429"),
    Fault.STATUS_500: ("HTTP 500", "HTTP 500"),
    Fault.CLOSE: (Reason.BROKEN_BEFORE, Reason.BROKEN_BEFORE),
    Fault.RESET: (Reason.BROKEN_WITHIN, Reason.BROKEN_WITHIN),
    Fault.CUT: (Reason.BROKEN_WITHIN, Reason.BROKEN_WITHIN),
    Fault.NO_DONE: (Reason.NO_DONE, None),
    Fault.AFTER_DONE: (Reason.AFTER_DONE, None),
    Fault.ERROR: (Reason.ERROR, Reason.ERROR),
    Fault.GARBAGE: (Reason.NOT_JSON, Reason.NOT_JSON),
    Fault.ABORT: (Reason.BAD_FINISH, Reason.BAD_FINISH),
    Fault.NO_FINISH: (Reason.NO_FINISH, Reason.NO_FINISH),
    Fault.NO_USAGE: (Reason.NO_USAGE, Reason.NO_USAGE),
    Fault.NO_CHOICE: (Reason.NO_CHOICE, Reason.NO_CHOICE),
    Fault.HANG: (Reason.TIMEOUT, Reason.TIMEOUT),
}
FOR_TOOLS = {Fault.NO_CALL: Reason.NO_CALL, Fault.BAD_CALL: Reason.BAD_CALL, Fault.WRONG_CALL: Reason.BAD_CALL}


def asked(url: str, mix: Mix, requests: int, **options: Any) -> list[Record]:
    """Have clients ask so many requests, and return what they noted."""
    records: list[Record] = []
    stop = asyncio.Event()

    def note(record: Record) -> None:
        records.append(record)
        if len(records) >= requests:
            stop.set()

    asyncio.run(run_clients(Target(url), mix, note, stop, **{"clients": 2, "timeout_s": 60, **options}))
    return records


def test_every_kind_from_a_healthy_engine_is_good() -> None:
    with serving(lambda _: Fault.NONE) as url:
        records = asked(url, EVERY, 64, clients=4)
    summary = summarise(records)
    assert [record for record in records if not record.ok] == []
    assert set(summary.counts) == {kind.value for kind in Kind}
    assert (summary.failed, summary.requests) == (0, len(records))
    assert summary.versions == {FINGERPRINT: len(records)}
    assert {record.kept for record in records} == {True, False}
    assert {record.model for record in records} == {"small", *ADAPTERS}
    assert all(0 < record.first <= record.end for record in records)


@pytest.mark.parametrize("fault", REASONS)
def test_a_fault_is_told(fault: Fault) -> None:
    hangs = fault is Fault.HANG
    with serving(lambda _: fault) as url:
        records = asked(url, Mix("small"), 1 if hangs else 6, clients=1, timeout_s=1 if hangs else 60)
    streamed, whole = REASONS[fault]
    for record in records:
        wanted = streamed if record.kind.endswith("streamed") else whole
        assert record.reason == (wanted or ""), record


@pytest.mark.parametrize("fault", FOR_TOOLS)
def test_a_broken_tool_call_is_told_and_no_other_request(fault: Fault) -> None:
    with serving(lambda _: fault) as url:
        records = asked(url, Mix("small"), 12, clients=1)
    for record in records:
        assert record.reason == (FOR_TOOLS[fault] if record.kind.startswith("tool") else ""), record


def test_a_token_too_few_is_told() -> None:
    with serving(lambda _: Fault.SHORT) as url:
        records = asked(url, Mix("small", tools=False), 8, clients=1)
    assert {record.reason for record in records} == {Reason.TOKENS}


def test_a_port_that_nobody_listens_on_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        records = asked(f"http://127.0.0.1:{free.getsockname()[1]}", EVERY, 2, clients=1)
    assert {record.reason for record in records} == {Reason.REFUSED}


def test_one_in_twenty_is_counted_and_the_others_are_good() -> None:
    with serving(lambda number: Fault.STATUS_500 if number % 20 == 7 else Fault.NONE) as url:
        summary = summarise(asked(url, EVERY, 60))
    assert summary.failed == 3
    assert summary.reasons == {"HTTP 500": 3}
    assert "3 failed" in summary.text()


def test_the_longest_time_without_a_good_answer_is_that_of_an_outage() -> None:
    def record(start: float, reason: str = "") -> Record:
        return Record(client=0, kind="chat", model="small", start=start, first=0.1, end=0.5, kept=True, reason=reason)

    rows = [record(0), record(1), record(2, "HTTP 503"), record(3, "HTTP 503"), record(6), record(7)]
    assert summarise(rows).gap_s == 5
    assert summarise(rows[:4]).gap_s == 2, "an outage that goes on to the end counts"
    assert summarise(rows[4:]).gap_s == 1


def test_the_same_seed_asks_the_same() -> None:
    with serving(lambda _: Fault.NONE) as url:
        first, again, other = (asked(url, EVERY, 9, clients=1, seed=seed) for seed in (1, 1, 2))
    shape = [[(record.kind, record.model, record.tokens) for record in records] for records in (first, again, other)]
    assert shape[0] == shape[1] != shape[2]


def test_the_program_ends_what_runs_when_it_is_told_to_stop(tmp_path: Path) -> None:
    output = tmp_path / "traffic.jsonl"

    def slow(_: int) -> Fault:
        time.sleep(0.5)
        return Fault.NONE

    with serving(slow) as url:
        argv = [sys.executable, "-m", "testing.traffic", "--url", url, "--model", "small", "--clients", "3"]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        with subprocess.Popen([*argv, "--output", str(output)], stdout=subprocess.PIPE, text=True, env=env) as program:
            local_edge.wait_for(lambda: output.exists() and output.stat().st_size > 0)
            time.sleep(0.2)  # within the next requests
            program.send_signal(signal.SIGTERM)
            told, _ = program.communicate(timeout=300)
    records = read_records(output)
    assert program.returncode == 0, told
    assert [record for record in records if not record.ok] == []
    assert f"{len(records)} requests in" in told
    assert len(records) >= 6, "three that ended before, and three that ran"


def test_the_program_says_by_its_exit_that_something_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda number: Fault.STATUS_503 if number == 2 else Fault.NONE) as url:
        options = ["--url", url, "--model", "small", "--output", str(tmp_path / "out"), "--requests", "8"]
        assert main(options) == 1
    assert "failed, HTTP 503: 1" in capsys.readouterr().out


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    authority = pki.make_authority("test", dt.datetime.now(dt.UTC))
    pki.save(tmp_path, "ca", authority)
    pki.save(tmp_path, "edge", pki.issue_server(["localhost"], authority, dt.datetime.now(dt.UTC)))
    return tmp_path / "edge.crt", tmp_path / "edge.key"


@pytest.mark.needs("nginx")
@pytest.mark.parametrize("reload", [False, True], ids=["left alone", "reloaded"])
def test_through_a_real_edge_nothing_fails_and_its_log_says_who_answered(
    tmp_path: Path,
    pair: tuple[Path, Path],
    reload: bool,  # noqa: FBT001
) -> None:
    folder, key = tmp_path / "edge", tmp_path / "client.key"
    folder.mkdir()
    key.write_text("rsk-roomy\n")
    output = tmp_path / "traffic.jsonl"
    with local_edge.running(folder, pair) as edge:
        edge.engines.answer = answer
        options = ["--url", f"https://127.0.0.1:{edge.port}", "--server-name", "localhost", "--key-file", str(key)]
        options += ["--ca", str(tmp_path / "ca.crt"), "--model", "small", "--requests", "200", "--output", str(output)]
        code = _while(options, edge.reload if reload else None)
        records, log = read_records(output), (folder / "log/access.log").read_text().splitlines()
    assert [record for record in records if not record.ok] == []
    assert code == 0
    (told,) = upstreams(records, log).values()
    assert told == {FINGERPRINT: len(records)}


def _while(options: list[str], act: Callable[[], object] | None) -> int:
    argv = [sys.executable, "-m", "testing.traffic", *options]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as program:
        if act:
            time.sleep(1.0)
            act()
        program.communicate(timeout=300)
    return program.returncode


def test_a_record_is_one_line_that_is_read_again(tmp_path: Path) -> None:
    record = Record(client=1, kind="chat", model="small", start=1.5, first=0.1, end=0.2, kept=True, reason="HTTP 503")
    (tmp_path / "records").write_text(record.line() * 2)
    assert read_records(tmp_path / "records") == [record, record]
    assert json.loads(record.line())["reason"] == "HTTP 503"
