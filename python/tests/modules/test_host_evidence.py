"""What the module brings, from what programs and files of a host say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rackserve.ansible.modules import host_evidence as he

if TYPE_CHECKING:
    from pathlib import Path


def test_a_unit_is_what_systemd_its_journal_and_its_probe_say() -> None:
    shown = "ActiveState=failed\nResult=oom-kill\nNRestarts=5\n"
    record = json.dumps({"state": "failed", "detail": "gave up"})
    found = he.unit_of("a", shown, "one\ntwo\n", record, drained=True)
    assert (found["active"], found["result"], found["restarts"], found["drained"]) == ("failed", "oom-kill", 5, True)
    assert (found["journal"], found["probe"], found["probe_detail"]) == (["one", "two"], "failed", "gave up")


def test_a_unit_of_which_nothing_is_known_is_unknown() -> None:
    found = he.unit_of("a", "", "", "", drained=False)
    assert (found["active"], found["probe"], found["restarts"], found["journal"]) == ("unknown", "unknown", 0, [])


def test_statuses_are_counted_and_half_lines_left_out() -> None:
    assert he.answers_of('us":200}\n{"status":200}\n{"status":429}\n{"status":200}\n{}') == {"200": 2, "429": 1}


def test_alerts_are_read_and_an_answer_that_is_none_has_none() -> None:
    alert = {"labels": {"alertname": "X"}, "state": "firing"}
    assert he.alerts_of(json.dumps({"data": {"alerts": [alert]}})) == [alert]
    assert he.alerts_of("") == he.alerts_of("<html>") == []


def test_a_filesystem_is_told_once(tmp_path: Path) -> None:
    found = he.free_of((str(tmp_path), str(tmp_path), "/nowhere"))
    assert list(found) == [str(tmp_path)]
    assert 0 <= found[str(tmp_path)] <= 1


def test_the_end_of_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\n")
    assert (he.tail(tmp_path / "log"), he.tail(tmp_path / "none")) == ("one\n", "")
