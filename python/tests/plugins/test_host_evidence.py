"""What the module brings, from what programs and files of a host say."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from rackserve.ansible.module_utils.rackserve_soak import alerts_of
from rackserve.ansible.modules import host_evidence as he

if TYPE_CHECKING:
    from pathlib import Path


def entries(*found: tuple[Any, dict[str, str]]) -> str:
    return "".join(f"{json.dumps({'MESSAGE': message, **fields})}\n" for message, fields in found)


def test_a_unit_is_what_systemd_its_journal_and_its_probe_say() -> None:
    shown = "ActiveState=failed\nResult=oom-kill\nNRestarts=5\n"
    record = json.dumps({"state": "failed", "detail": "gave up"})
    journal = entries(("one", {}), ("two", {}))
    found = he.unit_of("a", shown, journal, record, drained=True)
    assert (found["active"], found["result"], found["restarts"], found["drained"]) == ("failed", "oom-kill", 5, True)
    assert (found["journal"], found["probe"], found["probe_detail"]) == (["one", "two"], "failed", "gave up")


def test_a_unit_of_which_nothing_is_known_is_unknown() -> None:
    found = he.unit_of("a", "", "", "", drained=False)
    assert (found["active"], found["probe"], found["restarts"], found["journal"]) == ("unknown", "unknown", 0, [])


def test_a_start_begins_where_systemd_counts_a_new_invocation() -> None:
    """systemd's own lines about a unit have the number in another field than the unit's lines."""
    first, second = ({"_PID": "7", "_SYSTEMD_INVOCATION_ID": name} for name in ("aa", "bb"))
    of_systemd = {"_PID": "1", "INVOCATION_ID": "bb", "_SYSTEMD_INVOCATION_ID": "init"}
    journal = entries(("old", first), ("Starting a", of_systemd), ("new", second), ("kernel", {}), ("more", second))
    assert he.journal_of(journal) == (["old", "Starting a", "new", "kernel", "more"], [0, 1])


def test_lines_that_are_no_text_or_too_long_are_read_as_far_as_they_go() -> None:
    journal = entries((list(b"caf\xe9"), {}), (None, {}), ("two\nlines", {}), ("x" * 5000, {}))
    lines, begins = he.journal_of(f"{journal}no json\n")
    assert (lines[:4], len(lines[4]), begins) == (["caf\ufffd", "", "two", "lines"], he.LINE_CHARACTERS, [])


def test_statuses_of_the_last_ten_minutes_are_counted_with_their_minutes() -> None:
    times = [("10:00:01", 200), ("10:00:59", 200), ("10:01:00", 429), ("09:40:00", 503), ("10:05:00", 200)]
    lines = [json.dumps({"time": f"2026-11-27T{at}+00:00", "status": status}) for at, status in times]
    log = "\n".join(['us":200}', *lines, "{}", '{"status":200,"time":"then"}'])
    now = dt.datetime(2026, 11, 27, 10, 5, 30, tzinfo=dt.UTC)
    assert he.answers_of(log, now) == {"200": {"count": 3, "minutes": 2}, "429": {"count": 1, "minutes": 1}}


def test_marks_of_an_edge_are_read_and_other_hosts_have_none(tmp_path: Path) -> None:
    out = {"label": "gpu1:a", "by": "operator", "run": "", "weight": 0, "since": "2027-01-31T12:00:00Z"}
    marks = [{**out, "by": "rollout"}, out, {**out, "label": "gpu2:a", "weight": 5}]
    (tmp_path / "state").write_text(json.dumps({"marks": marks}))
    assert (he.drained_of(tmp_path / "state"), he.drained_of(tmp_path / "none")) == ([out], [])


def test_alerts_are_read_and_an_answer_that_is_none_has_none() -> None:
    alert = {"labels": {"alertname": "X"}, "state": "firing"}
    assert alerts_of(json.dumps({"data": {"alerts": [alert]}})) == [alert]
    assert alerts_of("") is alerts_of("<html>") is None


def test_a_filesystem_is_listed_once(tmp_path: Path) -> None:
    found = he.free_of([str(tmp_path), str(tmp_path), "/nowhere"])
    assert list(found) == [str(tmp_path)]
    assert 0 <= found[str(tmp_path)] <= 1


def test_the_end_of_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\n")
    assert (he.tail(tmp_path / "log"), he.tail(tmp_path / "none")) == ("one\n", "")
