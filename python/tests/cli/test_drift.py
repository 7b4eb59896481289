"""`rackserve drift` through `main(argv)`; the runner and the inventory are faked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rackserve.cli import _drift, main
from rackserve.programs.host_state import KINDS
from rackserve.run import EventKind, Fleet, FleetHost, HostStats, RunEvent, RunResult, TaskFailure, _ansible

HOSTS = (FleetHost("gpu1", ("vllm_hosts",), "10.0.0.11"), FleetHost("edge1", ("edge_hosts",), None))
STATS = (HostStats("edge1", ok=1), HostStats("gpu1", ok=1))
FINE: dict[str, Any] = {
    "written": "2026-11-30T06:00:00+00:00",
    "differences": [],
    "unread": {},
    "seconds": 1.5,
    "problem": "",
}
ONE = {
    "kind": "file",
    "what": "/etc/a",
    "attribute": "mode",
    "recorded": "0644",
    "found": "0666",
    "text": "mode of /etc/a is 0666, recorded 0644",
    "role": "nginx",
    "since": "2026-11-30T07:00:00+00:00",
    "by": "logged in then: eve",
}
STRAY = {**ONE, "kind": "unowned", "what": "/etc/x", "attribute": "presence", "recorded": "", "found": "file"}
DIFFERS = {**FINE, "differences": [ONE, STRAY]}
NONE = {**FINE, "written": "", "problem": "record.json is missing: run rackserve apply"}
PART = {**FINE, "unread": {"firewall": "nft: No such file"}}
OFF = TaskFailure("gpu1", "t", "ssh: connect to host 10.0.0.11 port 22: No route to host")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs the command on what the hosts bring."""
    monkeypatch.setenv("RACKSERVE_PROJECT", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(_drift, "load_fleet", lambda path: Fleet(path, HOSTS))

    def call(drift: dict[str, Any] | None, *options: str) -> int:
        def run_playbook(playbook: Path, inventory: Path, **asked: Any) -> RunResult:
            assert (playbook.name, inventory.is_dir(), asked["tags"]) == ("verify_fleet.yml", True, ["drift"])
            brought = {"edge1": FINE, **({"gpu1": drift} if drift else {})}
            for host, data in brought.items():
                asked["on_event"](RunEvent(EventKind.OK, task="t", host=host, data={"drift": data}))
            return RunResult(0 if drift else 4, "done", STATS, (), () if drift else (OFF,), asked["record_dir"])

        monkeypatch.setattr(_ansible, "run_playbook", run_playbook)
        return main(["drift", "-i", str(tmp_path), *options])

    return call


@pytest.mark.parametrize(
    ("drift", "code"),
    [(FINE, 0), (DIFFERS, 1), (NONE, 2), (PART, 2), (None, 2)],
    ids=["none", "some", "no record", "not in every part", "off"],
)
def test_the_exit_code_says_what_was_found(run: Any, drift: dict[str, Any] | None, code: int) -> None:
    assert run(drift) == code


def test_no_difference_is_one_line(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(FINE)
    assert capsys.readouterr().out == "no difference on 2 hosts\n"


def test_a_row_for_each_difference_and_what_to_do(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(DIFFERS)
    head, first, second, *_, count, file, unowned, accept = capsys.readouterr().out.splitlines()
    assert head.split() == ["HOST", "KIND", "WHAT", "RECORDED", "FOUND", "SINCE", "BY"]
    assert first.split()[:6] == ["gpu1", "file", "/etc/a:", "mode", "0644", "0666"]
    assert second.split()[:5] == ["gpu1", "unowned", "/etc/x", "absent", "file"]
    assert count == "2 differences"
    assert (file.startswith("file: `rackserve apply`"), unowned.startswith("unowned: remove it")) == (True, True)
    assert "--accept REASON" in accept


class TestAcceptance:
    """`--accept`: what was printed is recorded as it is, and nothing else."""

    @pytest.fixture
    def accepted(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """Return what the play that records was run with."""
        seen: list[dict[str, Any]] = []

        def run_site(_inventory: str, limit: str, **asked: Any) -> tuple[RunResult, Fleet]:
            seen.append({"limit": limit, "playbook": asked["playbook_name"], **asked["variables"]})
            asked["on_event"](RunEvent(EventKind.OK, task="t", host="gpu1", data={"notes": self.left}))
            return RunResult(0, "done", STATS, (), (), Path("/record")), Fleet(Path("/site"), HOSTS)

        monkeypatch.setattr(_drift, "run_site", run_site)
        return seen

    left: ClassVar[list[str]] = []

    def test_the_hosts_that_differ_record_what_was_seen(self, run: Any, accepted: list[dict[str, Any]]) -> None:
        assert run(DIFFERS, "--accept", " vendor's fix ", "--yes") == 0
        seen = [f"gpu1: {ONE['text']}", f"gpu1: {STRAY['text']}"]
        assert accepted == [
            {
                "limit": "gpu1",
                "playbook": "playbooks/record_fleet.yml",
                "drift_accept_reason": "vendor's fix",
                "drift_accept_seen": seen,
            }
        ]

    def test_what_no_record_takes_is_told(
        self,
        run: Any,
        accepted: list[dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(TestAcceptance, "left", ["gpu1: /etc/x is nobody's"])
        assert run(DIFFERS, "--accept", "r", "--yes") == 1
        assert accepted
        assert "still a difference: gpu1: /etc/x is nobody's" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("drift", "options", "code"),
        [
            (FINE, ("--accept", "r", "--yes"), 0),
            ({**DIFFERS, "unread": {"firewall": "nft: No such file"}}, ("--accept", "r", "--yes"), 2),
            (None, ("--accept", "r", "--yes"), 2),
            (DIFFERS, ("--accept", " ", "--yes"), 2),
            (DIFFERS, ("--accept", "r"), 2),
        ],
        ids=["nothing differs", "not in every part", "off", "no reason", "nobody to ask"],
    )
    def test_nothing_is_accepted(
        self,
        run: Any,
        accepted: list[dict[str, Any]],
        drift: dict[str, Any] | None,
        options: tuple[str, ...],
        code: int,
    ) -> None:
        assert run(drift, *options) == code
        assert accepted == []


@pytest.mark.parametrize(
    ("drift", "said"),
    [
        (NONE, "gpu1: record.json is missing: run rackserve apply"),
        (PART, "gpu1: firewall could not be compared: nft: No such file"),
        (None, "gpu1: cannot reach gpu1 (10.0.0.11) over SSH: connect to host 10.0.0.11 port 22: No route to host"),
    ],
)
def test_what_was_not_compared_is_said(
    run: Any, capsys: pytest.CaptureFixture[str], drift: dict[str, Any] | None, said: str
) -> None:
    run(drift)
    assert said in capsys.readouterr().err


def test_json_has_stable_keys(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(DIFFERS, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["ok", "differences", "unchecked", "hosts"]
    assert said["ok"] is False
    assert said["differences"][0] == {"host": "gpu1", **ONE}
    assert said["hosts"][1] == {"host": "edge1", "written": FINE["written"], "seconds": 1.5, "differences": 0}
    assert run(NONE, "--json") == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["unchecked"][0]["host"]) == (False, "gpu1")


def test_every_kind_has_advice() -> None:
    assert set(_drift.ADVICE) == set(KINDS)
