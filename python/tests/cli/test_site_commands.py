"""apply, verify, status, drain and init through `main(argv)`; the runner and the inventory are faked."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.checks import CheckResult, edge
from rackserve.cli import _status, _verify, main
from rackserve.errors import RunError
from rackserve.run import (
    EventKind,
    Fleet,
    FleetHost,
    HostStats,
    RunEvent,
    RunResult,
    TaskFailure,
    _ansible,
    _site,
    run_lock,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EDGE = {"port": 443, "server_name": "n", "ca_file": "", "model": "m", "expect": "Paris", "rate": 1, "burst": 2}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a site whose inventory has gpu1 and edge1, in a project with a site.yml."""
    project, inventory = tmp_path / "project", tmp_path / "site"
    project.mkdir()
    inventory.mkdir()
    (project / "site.yml").touch()
    monkeypatch.setenv("RACKSERVE_PROJECT", str(project))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    hosts = (FleetHost("gpu1", ("vllm_hosts",), "10.0.0.11"), FleetHost("edge1", ("edge_hosts",), None))
    for module in (_site, _verify, _status):
        monkeypatch.setattr(module, "load_fleet", lambda path: Fleet(path, hosts))
    return inventory


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that sets what the next run gives; it returns what the run was called with."""

    def prepare(
        events: tuple[RunEvent, ...] = (),
        *,
        hosts: tuple[HostStats, ...] = (HostStats("edge1", ok=1), HostStats("gpu1", ok=2, changed=1)),
        failures: tuple[TaskFailure, ...] = (),
        unreachable: tuple[TaskFailure, ...] = (),
    ) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def run(playbook: Path, inventory: Path, **options: Any) -> RunResult:
            seen.update(options, playbook=playbook.name, inventory=inventory)
            for event in events:
                options["on_event"](event)
            rc = 2 if failures else 4 if unreachable else 0
            return RunResult(rc, "done", hosts, failures, unreachable, options["record_dir"])

        monkeypatch.setattr(_ansible, "run_playbook", run)
        return seen

    return prepare


def evidence(host: str, *checks: dict[str, Any], edge: dict[str, Any] | None = None) -> RunEvent:
    failed = any(not check["ok"] for check in checks)
    kind = EventKind.FAILED if failed else EventKind.OK
    facts = {"address": f"addr-{host}", "edge": edge}
    return RunEvent(kind, task="t", host=host, data={"checks": list(checks), "facts": facts})


def check(name: str, *, ok: bool = True) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": "seen"}


def test_apply(site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    events = (
        RunEvent(EventKind.PLAY, play="Edge"),
        RunEvent(EventKind.TASK, role="nginx", task="nginx : install | Install it"),
        RunEvent(EventKind.CHANGED, host="gpu1", data={"stdout": "canary"}),
        RunEvent(EventKind.OK, host="edge1", data={"notes": ["edge1: kernel: 7.0.0, not known to build"]}),
        RunEvent(EventKind.TASK, role="nginx", task="nginx : install | Skipped everywhere"),
        RunEvent(EventKind.SKIPPED, host="gpu1"),
        RunEvent(EventKind.STATS),
    )
    seen = fake_run(events)
    assert main(["apply", "-i", str(site), "--limit", "gpu1", "--check"]) == 0
    out, err = capsys.readouterr()
    assert (seen["playbook"], seen["inventory"], seen["limit"], seen["check"]) == ("site.yml", site, "gpu1", True)
    assert out.splitlines()[0].split() == ["HOST", "OK", "CHANGED", "FAILED", "UNREACHABLE", "SKIPPED"]
    assert out.splitlines()[2].split() == ["gpu1", "2", "1", "0", "0", "0"]
    assert "nginx | install | Install it  0.0 s  ok 1 changed 1" in err
    assert "Skipped everywhere" not in err
    assert "    edge1: kernel: 7.0.0, not known to build\n" in err
    assert "canary" not in out + err


def test_apply_that_fails_prints_one_message_per_host(
    site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run(
        hosts=(HostStats("edge1", unreachable=1), HostStats("gpu1", failed=1)),
        failures=(TaskFailure("gpu1", "preflight | Disk", "too little disk"),),
        unreachable=(TaskFailure("edge1", "t", "ssh: connect to host 10.0.0.21 port 22: No route to host"),),
    )
    assert main(["apply", "-i", str(site)]) == 1
    err = capsys.readouterr().err
    assert err.count("gpu1: preflight | Disk: too little disk") == 1
    assert err.count("cannot reach edge1 (10.0.0.21) over SSH: connect to host") == 1
    assert main(["apply", "-i", str(site), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert sorted(said) == ["failures", "hosts", "messages", "ok", "record", "unreachable"]
    assert said["ok"] is False


WOULD_CHANGE = (
    RunEvent(
        EventKind.CHANGED, role="nginx", task="nginx : configure | Write it", host="edge1", data={"stdout": "canary"}
    ),
    RunEvent(EventKind.CHANGED, role="vllm", task="vllm : configure | Write it", host="gpu1"),
    RunEvent(EventKind.CHANGED, role="vllm", task="vllm : service | Start it", host="gpu1"),
    RunEvent(EventKind.OK, role="vllm", task="vllm : verify | Look", host="gpu1"),
)


def test_plan_says_what_would_change_and_ends_with_0(
    site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = fake_run(WOULD_CHANGE, hosts=(HostStats("edge1", ok=1, changed=1), HostStats("gpu1", ok=3, changed=2)))
    assert main(["plan", "-i", str(site), "--limit", "all"]) == 0
    assert (seen["playbook"], seen["limit"], seen["check"]) == ("site.yml", "all", True)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["ROLE", "edge1", "gpu1"],
        ["nginx", "1", "-"],
        ["vllm", "-", "2"],
        [],
        ["ROLE", "TASK", "HOSTS"],
        ["nginx", "configure", "|", "Write", "it", "edge1"],
        ["vllm", "configure", "|", "Write", "it", "gpu1"],
        ["vllm", "service", "|", "Start", "it", "gpu1"],
        [],
        ["3", "tasks", "would", "change", "edge1,", "gpu1"],
    ]
    assert main(["plan", "-i", str(site), "--json"]) == 0
    text = capsys.readouterr().out
    said = json.loads(text)
    assert sorted(said) == ["changes", "differs", "hosts", "messages", "ok", "record", "roles"]
    assert (said["ok"], said["differs"], said["roles"]) == (True, True, {"nginx": {"edge1": 1}, "vllm": {"gpu1": 2}})
    assert said["changes"][0] == {"role": "nginx", "task": "configure | Write it", "hosts": ["edge1"]}
    assert "canary" not in text


def test_plan_of_a_site_as_it_should_be(site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake_run(WOULD_CHANGE[3:], hosts=(HostStats("edge1", ok=1), HostStats("gpu1", ok=3)))
    assert main(["plan", "-i", str(site)]) == 0
    assert capsys.readouterr().out == "nothing would change on edge1, gpu1\n"
    assert main(["plan", "-i", str(site), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differs"] is False


def test_plan_of_a_host_that_is_refused_ends_with_1(
    site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = TaskFailure("gpu1", "preflight | Refuse", "too little disk")
    fake_run(hosts=(HostStats("edge1", ok=1), HostStats("gpu1", failed=1)), failures=(refused,))
    assert main(["plan", "-i", str(site)]) == 1
    out, err = capsys.readouterr()
    assert out == "nothing would change on edge1, gpu1 as far as could be seen\n"
    assert "gpu1: preflight | Refuse: too little disk" in err


@pytest.mark.parametrize(
    ("argv", "variables"),
    [
        (["drain", "gpu1:a"], {"nginx_drain": ["gpu1:a"], "nginx_drain_force": False}),
        (["drain", "--force", "gpu1"], {"nginx_drain": ["gpu1"], "nginx_drain_force": True}),
        (["undrain", "gpu1"], {"nginx_undrain": ["gpu1"], "nginx_drain_force": False}),
        (["undrain", "--force", "gpu1"], {"nginx_undrain": ["gpu1"], "nginx_drain_force": True}),
    ],
)
def test_drain(site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str], argv: list[str], variables: Any) -> None:
    seen = fake_run(hosts=(HostStats("edge1", ok=9, changed=2),))
    assert main([*argv, "-i", str(site)]) == 0
    assert (seen["playbook"], seen["tags"], seen["variables"]) == ("configure_edge.yml", ["nginx_rotate"], variables)
    assert f"{argv[-1]}: {'out of' if argv[0] == 'drain' else 'in'} rotation" in capsys.readouterr().out


def test_a_drain_that_an_edge_refuses(site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    refused = TaskFailure("edge1", "preflight | Refuse", "no host and no instance 'gpu9' is behind the edge")
    fake_run(hosts=(HostStats("edge1", ok=1, failed=1),), failures=(refused,))
    assert main(["drain", "gpu9", "-i", str(site)]) == 1
    assert "no host and no instance 'gpu9'" in capsys.readouterr().err


def test_certificates_of_the_edges(site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = fake_run(hosts=(HostStats("edge1", ok=3, changed=1), HostStats("edge2", ok=3)))
    assert main(["ca", "issue", "--renew", "-i", str(site)]) == 0
    assert (seen["playbook"], seen["variables"]) == ("issue_certificates.yml", {"edge_certificate_renew": True})
    assert capsys.readouterr().out.splitlines()[1] == "edge2: nothing to make"


@pytest.mark.parametrize("argv", [["drain", "gpu1"], ["ca", "issue"]])
def test_a_site_without_an_edge(site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    fake_run(hosts=())
    assert main([*argv, "-i", str(site)]) == 2
    assert "is in the group edge_hosts" in capsys.readouterr().err


def test_apply_while_another_run_goes_on(site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = fake_run()
    with run_lock(site):
        assert main(["apply", "-i", str(site)]) == 2
    assert "it runs on this controller: wait for its end" in capsys.readouterr().err
    assert seen == {}
    with run_lock(site):
        assert main(["apply", "--check", "-i", str(site)]) == 0


def test_what_cannot_start_ends_with_2(
    site: Path, fake_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["apply", "-i", str(site / "none")]) == 2
    assert "rackserve init" in capsys.readouterr().err
    fake_run(hosts=())
    for command in ("plan", "apply", "verify", "status"):
        assert main([command, "-i", str(site)]) == 2
        assert "--limit" in capsys.readouterr().err

    def fail(*_args: Any, **_options: Any) -> RunResult:
        raise RunError("ansible-playbook could not run")

    monkeypatch.setattr(_ansible, "run_playbook", fail)
    for command in ("plan", "apply", "verify", "status"):
        assert main([command, "-i", str(site)]) == 2
        assert "could not run" in capsys.readouterr().err


def test_a_working_directory_that_was_removed(
    site: Path, fake_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = fake_run()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("PWD", str(gone))
    gone.rmdir()
    assert main(["apply", "-i", str(site)]) == 2
    assert capsys.readouterr().err == (
        f"rackserve: the working directory {gone} was removed; cd to an existing one, and run it again\n"
    )
    assert seen == {}


def test_verify(
    site: Path,
    fake_run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = fake_run((evidence("gpu1", check("chat a")), evidence("edge1", check("unit nginx"), edge=EDGE)))
    through = [CheckResult("tls", "edge1", ok=True, detail="TLSv1.3")]
    monkeypatch.setattr(edge, "run_edge_checks", lambda _target: tuple(through))
    report = tmp_path / "junit.xml"
    assert main(["verify", "-i", str(site), "--json", "--junit", str(report)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (seen["tags"], seen["playbook"]) == (["verify"], "verify_fleet.yml")
    assert said["ok"] is True
    assert said["checks"][0] == {"name": "chat a", "host": "gpu1", "ok": True, "detail": "seen"}
    assert [item["name"] for item in said["checks"]] == ["chat a", "unit nginx", "tls"]
    assert suites(report)[1] == {"name": "edge1", "tests": "2", "failures": "0"}

    through[0] = CheckResult("tls", "edge1", ok=False, detail="<expired>")
    assert main(["verify", "-i", str(site), "--junit", str(report)]) == 1
    out = capsys.readouterr().out
    assert "tls         FAILED   <expired>" in out
    assert out.endswith("3 checks, 1 failed\n")
    assert suites(report)[1]["failures"] == "1"


def suites(report: Path) -> list[dict[str, str]]:
    return [suite.attrib for suite in ET.parse(report).getroot()]  # noqa: S314 - written by the command under test


@pytest.mark.parametrize(
    "events",
    [
        (evidence("gpu1", check("chat a", ok=False)), evidence("edge1", check("unit nginx"))),
        (evidence("edge1", check("unit nginx")),),
        (),
    ],
)
def test_verify_fails_for_a_failed_check_and_for_missing_evidence(
    site: Path, fake_run: Any, events: tuple[RunEvent, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run(events)
    assert main(["verify", "-i", str(site), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert {item["host"] for item in said["checks"]} == {"gpu1", "edge1"}


def test_verify_refuses_a_report_it_could_not_write_before_it_looks(site: Path, fake_run: Any) -> None:
    seen = fake_run()
    assert main(["verify", "-i", str(site), "--junit", str(site / "no" / "junit.xml")]) == 2
    assert seen == {}


ROW = {
    "instance": "a",
    "device": "cpu",
    "release": "0.32.0-abc",
    "state": "answering",
    "waiting": 2.0,
    "running": 1.0,
    "kv_use": 0.25,
    "tokens_per_s": 12.5,
    "health": "busy",
    "health_for_s": 7265.0,
    "last_token_age_s": 75.4,
    "probe_restarts": 3,
}


def test_status(site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = fake_run((evidence("gpu1", {**check("status a"), "data": ROW}),))
    assert main(["status", "-i", str(site)]) == 0
    assert seen["tags"] == ["status"]
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[:9] == ["gpu1", "a", "cpu", "0.32.0-abc", "answering", "2", "1", "25.0%", "12.5"]
    assert " ".join(row[9:]) == "busy 2 h 1 min 1 min 15 s 3 -"
    assert main(["status", "-i", str(site), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "instances": [{"host": "gpu1", **ROW, "edge": None, "drained_for_s": None, "drained_by": None}],
        "problems": [],
    }


def gone(seconds: float, weight: int = 0, by: str = "operator", run: str = "") -> dict[str, Any]:
    return {"weight": weight, "by": by, "run": run, "seconds": seconds}


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([{}], ("in", None, None, "in")),
        ([{"gpu2:a": gone(9.0)}], ("in", None, None, "in")),
        ([{"gpu1:a": gone(7265.0)}], ("out", 7265.0, "operator", "out 2 h 1 min by operator")),
        ([{"gpu1:a": gone(60.0)}, {}], ("partly out", 60.0, "operator", "partly out 1 min 0 s by operator")),
        ([{"gpu1:a": gone(60.0)}, {"gpu1:a": gone(90.0)}], ("out", 90.0, "operator", "out 1 min 30 s by operator")),
        (
            [{"gpu1:a": gone(9.0, 5, "rollout", "r1")}, {"gpu1:a": gone(9.0)}],
            ("partly out", 9.0, "operator, rollout r1", "partly out 9 s by operator, rollout r1"),
        ),
        ([{"gpu1:a": gone(9.0, 5, "rollout", "r1")}], ("5 %", 9.0, "rollout r1", "5 % 9 s by rollout r1")),
    ],
)
def test_status_of_a_drained_instance(
    site: Path,
    fake_run: Any,
    capsys: pytest.CaptureFixture[str],
    edges: list[dict[str, Any]],
    expected: tuple[str, float | None, str | None, str],
) -> None:
    marks = [evidence(f"edge{i}", {**check("rotation"), "data": {"marks": of}}) for i, of in enumerate(edges)]
    fake_run((evidence("gpu1", {**check("status a"), "data": ROW}), *marks))
    assert main(["status", "-i", str(site)]) == 0
    assert " ".join(capsys.readouterr().out.splitlines()[1].split()).endswith(f" 3 {expected[3]}")
    assert main(["status", "-i", str(site), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["instances"]
    assert (row["edge"], row["drained_for_s"], row["drained_by"]) == expected[:3]


def test_status_of_an_instance_that_is_down_and_of_a_host_that_is(
    site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    down = {**ROW, "state": "failed", "waiting": None}
    fake_run((evidence("gpu1", {**check("status a", ok=False), "data": down}),))
    assert main(["status", "-i", str(site)]) == 1
    assert "gpu1: seen" in capsys.readouterr().out
    fake_run(unreachable=(TaskFailure("gpu1", "t", "timed out"),))
    assert main(["status", "-i", str(site), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["instances"][0]["state"] == "unreachable"
    assert "cannot reach gpu1" in said["problems"][0]


@pytest.mark.parametrize("health", ["hung", "corrupt", "stale", None])
def test_status_of_an_instance_that_answers_but_generates_nothing(
    site: Path, fake_run: Any, capsys: pytest.CaptureFixture[str], health: str | None
) -> None:
    fake_run((evidence("gpu1", {**check("status a", ok=False), "data": {**ROW, "health": health}}),))
    assert main(["status", "-i", str(site), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["instances"][0]["health"] == health


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (3599, "59 min 59 s"), (2e5, "2 d 7 h")])
def test_spans_of_time(seconds: float, text: str) -> None:
    assert _status._span(seconds) == text


def test_init(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new" / "site"
    assert main(["init", str(target)]) == 0
    assert "rackserve apply -i" in capsys.readouterr().out
    assert (target / "hosts.yml").is_file()
    assert "stack_addresses:" in (target / "group_vars" / "all" / "stack.yml").read_text(encoding="utf-8")


def test_init_refuses_a_folder_that_holds_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert main(["init", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["init", str(tmp_path / "mine")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
