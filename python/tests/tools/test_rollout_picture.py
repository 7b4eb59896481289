"""The picture of a rollout shows what its clients noted, and nothing that did not happen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

import rollout_picture
from rollout_picture import Event, draw, main, over_time, span_of, states_of
from testing.traffic import Record

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = "vllm-0.31.0-aaaaaaaa", "vllm-0.32.0-bbbbbbbb"


def record(start: float, *, reason: str = "", version: str = OLD, end: float = 0.5) -> Record:
    return Record(
        client=0,
        kind="chat",
        model="small",
        start=1_800_000_000 + start,
        first=end / 2,
        end=end,
        kept=True,
        status=200,
        reason=reason,
        fingerprint="" if reason else version,
    )


@pytest.fixture
def records() -> list[Record]:
    rolled = [record(second, version=OLD if second < 60 else NEW) for second in range(120)]
    return [*rolled, record(61, reason="HTTP 503"), record(62, reason="HTTP 503")]


def words(svg: str) -> str:
    return " ".join(text for text in ET.fromstring(svg).itertext() if text.strip())  # noqa: S314 - our own


def test_versions_reasons_and_hosts_are_named(records: list[Record]) -> None:
    at = records[0].start
    events = [Event(at + 30, "gpu1", "drains"), Event(at + 60, "gpu1", "serves"), Event(at + 90, "gpu2", "gates")]
    shown = words(draw(records, events, "A change"))
    for word in (OLD, NEW, "HTTP 503", "gpu1", "gpu2", "122 requests", "2 failed", "A change"):
        assert word in shown


def test_a_rollout_without_failures_shows_a_line_at_zero(records: list[Record]) -> None:
    shown = words(draw([each for each in records if each.ok], [], "A change"))
    assert "0 failed" in shown
    assert "none" in shown
    assert "HTTP" not in shown
    assert "No data" not in shown


def test_every_answer_is_counted_once(records: list[Record]) -> None:
    span = span_of(records)
    rows = over_time(records, span, lambda each: each.fingerprint if each.ok else None)
    step = rollout_picture.step_of(span)
    assert {name: round(sum(value for _, value in points) * step) for name, points in rows} == {OLD: 60, NEW: 60}


def test_a_host_serves_before_its_first_event(records: list[Record]) -> None:
    at = records[0].start
    ((host, points),) = states_of([Event(at + 50, "gpu1", "returns")], span_of(records))
    assert host == "gpu1"
    assert {state for moment, state in points if moment < at + 50} == {0.0}
    assert {state for moment, state in points if moment >= at + 50} == {4.0}


def test_the_program_writes_one_file(tmp_path: Path, records: list[Record]) -> None:
    lines, events, picture = tmp_path / "lines", tmp_path / "events", tmp_path / "picture.svg"
    lines.write_text("".join(each.line() for each in records))
    events.write_text(json.dumps({"at": records[0].start, "host": "gpu1", "state": "serves"}) + "\n")
    assert main([str(lines), str(picture), "--events", str(events)]) == 0
    assert "gpu1" in words(picture.read_text())


@pytest.mark.parametrize(
    ("lines", "events", "said"),
    [
        ("", "", "has no request"),
        ("{}", "", "missing"),
        ("", '{"at": 1, "host": "gpu1", "state": "naps"}', "has the state 'naps'; set one of serves, drains"),
    ],
)
def test_what_cannot_be_drawn_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, events: str, said: str
) -> None:
    (tmp_path / "lines").write_text(lines)
    (tmp_path / "events").write_text(events)
    argv = [str(tmp_path / "lines"), str(tmp_path / "picture.svg"), "--events", str(tmp_path / "events")]
    assert main(argv) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "picture.svg").exists()
