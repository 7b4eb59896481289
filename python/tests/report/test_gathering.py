"""What a page is made of: the record of a run, hosts and instances, capacity, and the file that is written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackserve import bundle
from rackserve.bundle import Manifest, Model
from rackserve.errors import InputError
from rackserve.report import (
    SiteCollector,
    describe_capacity,
    describe_hosts,
    describe_instances,
    find_record,
    read_run,
    refuse_target,
    write_page,
)
from rackserve.report._file import MARK
from rackserve.run import EventKind, FleetHost, RunEvent, TaskChange, by_role
from testing.report_pages import SHAPE

if TYPE_CHECKING:
    from pathlib import Path

INSTANCE = {
    "name": "chat",
    "model": {"repo": "org/model", "revision": "a" * 40, "served_names": ["chat"]},
    "max_model_len": 2048,
    "max_num_seqs": 8,
    "dtype": "bfloat16",
}
HOSTS = (FleetHost("gpu1", ("vllm_hosts",), None), FleetHost("gpu2", ("vllm_hosts",), "10.0.0.12"))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "state" / "rackserve" / "runs"
    folder.mkdir(parents=True)
    return folder


def record(runs: Path, name: str, inventory: Path, **summary: Any) -> Path:
    folder = runs / name
    events = folder / "artifacts" / "ansible" / "job_events"
    events.mkdir(parents=True)
    record = {
        "playbook": "/x/site.yml",
        "inventory": str(inventory),
        "limit": None,
        "check": False,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:02:05+00:00",
        "rc": 0,
        "hosts": [{"name": "gpu1", "ok": 3, "changed": 2, "failed": 0, "unreachable": 0, "skipped": 1}],
        "failures": [],
        "unreachable": [],
        **summary,
    }
    (folder / "summary.json").write_text(json.dumps(record), encoding="utf-8")
    for number, (role, task, host, changed) in enumerate(
        [
            ("vllm", "vllm : install | Second", "gpu2", True),
            ("vllm", "vllm : install | Second", "gpu1", True),
            ("vllm", "vllm : install | Nothing", "gpu1", False),
            ("nginx", "nginx : service | Last", "edge1", True),
        ],
        start=2,
    ):
        data = {"role": role, "task": task, "host": host, "res": {"changed": changed, "stdout": "canary"}}
        event = {"event": "runner_on_ok", "event_data": data}
        # The numbers of files are not padded: 10 comes after 5.
        (events / f"{number * 5}-u.json").write_text(json.dumps(event), encoding="utf-8")
    (events / "99-u.json").write_text("{half", encoding="utf-8")
    return folder


def test_a_record_is_who_changed_what_and_no_result(runs: Path, tmp_path: Path) -> None:
    run = read_run(record(runs, "20260101T000000Z-site", tmp_path))
    assert (run.name, run.playbook, run.seconds, run.ok, run.changed) == (
        "20260101T000000Z-site",
        "site.yml",
        125,
        True,
        2,
    )
    assert run.changes == (
        TaskChange("vllm", "install | Second", ("gpu1", "gpu2")),
        TaskChange("nginx", "service | Last", ("edge1",)),
    )
    assert by_role(run.changes) == {"vllm": {"gpu1": 1, "gpu2": 1}, "nginx": {"edge1": 1}}
    assert "canary" not in repr(run)


def test_the_last_run_that_changed_this_site_is_taken(runs: Path, tmp_path: Path) -> None:
    assert find_record(None, tmp_path) is None
    mine = record(runs, "20260101T000000Z-site", tmp_path)
    record(runs, "20260102T000000Z-site", tmp_path, check=True)
    record(runs, "20260103T000000Z-site", tmp_path / "other")
    record(runs, "20260104T000000Z-verify_fleet", tmp_path, playbook="/x/verify_fleet.yml")
    (runs / "20260105T000000Z-site").mkdir()  # one that goes on has no summary yet
    assert find_record(None, tmp_path) == mine
    assert find_record("20260102T000000Z-site", tmp_path) == runs / "20260102T000000Z-site"
    assert find_record(str(mine), tmp_path) == mine


def test_a_record_that_is_none_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no record of a run gone"):
        find_record("gone", tmp_path)
    broken = record(runs, "b", tmp_path)
    for text in ("{", "{}", "[1]"):
        (broken / "summary.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="give another with --run"):
            read_run(broken)


def event(host: str, **data: Any) -> RunEvent:
    return RunEvent(EventKind.OK, host=host, data=data)


def seen(bundle_path: Path) -> SiteCollector:
    found = SiteCollector()
    facts: dict[str, Any] = {
        "address": "10.0.0.11",
        "bundle": str(bundle_path),
        "serves": {
            "instances": [INSTANCE],
            "runtime": {"vllm": "0.32.0", "flavour": "cpu", "python": "3.11"},
            "cpu_kvcache_gib": 1,
        },
    }
    row = {"instance": "chat", "device": "cpu", "release": "0.32.0-abc", "state": "answering", "health": "ready"}
    floor = {"lab": {"version": 7, "id": "x"}}
    installed: dict[str, Any] = {
        "distribution": "debian",
        "release": "12",
        "architecture": "x86_64",
        "releases": ["r"],
        "floor": floor,
    }
    for host in ("gpu1", "gpu2"):
        state = {"name": "status chat", "ok": True, "detail": "", "data": row}
        found.take(event(host, checks=[state], facts=facts))
        found.take(event(host, checks=[{"name": "c", "ok": True, "detail": "d"}], facts=facts))
    found.take(event("gpu1", **installed))
    gpu = {"bus_id": "0000:01:00.0", "device_id": "2335", "name": "NVIDIA H200", "memory": 1}
    facts = {"gpus": [gpu], "driver": {"version": "570.1"}, "host": {"kernel": "6", "glibc": "2.36"}}
    found.take(RunEvent(EventKind.OK, host="gpu1", data=facts))
    found.take(RunEvent(EventKind.TASK, task="t"))
    return found


def test_hosts_and_instances(tmp_path: Path) -> None:
    found = seen(tmp_path)
    one, other = describe_hosts(HOSTS, found)
    assert (one.address, one.system, one.bundle) == ("10.0.0.11", "debian 12, x86_64", "lab version 7")
    assert (one.gpus, one.driver, one.releases, one.roles) == (("H200",), "570.1", ("r",), ("serves models",))
    assert (other.system, other.bundle, other.gpus) == ("", "", ())
    (first, second) = describe_instances(HOSTS, found)
    assert (first.host, first.name, first.device, first.state, first.health) == (
        "gpu1",
        "chat",
        "cpu",
        "answering",
        "ready",
    )
    assert second.host == "gpu2"
    assert [check.name for check in found.verdicts.by_host["gpu1"].results] == ["c"]
    assert describe_instances(HOSTS, SiteCollector()) == ()


def test_a_state_that_could_not_be_read_takes_no_verdict_away(tmp_path: Path) -> None:
    found = seen(tmp_path)
    found.take(event("gpu2", checks=[{"name": "status chat", "ok": False, "detail": "no answer"}]))
    assert [check.name for check in found.verdicts.by_host["gpu2"].results] == ["c"]
    bare = SiteCollector()
    bare.take(event("edge1", checks=[]))
    bare.take(event("edge1", checks=[]))
    assert list(bare.states.by_host) == list(bare.verdicts.by_host) == ["edge1"]


def test_capacity_of_equal_instances_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SHAPE), encoding="utf-8")
    model = Model("org/model", "a" * 40, "models/m", 1)
    manifest = Manifest("lab", 1, None, (), (model,), (), (), None, ())
    monkeypatch.setattr(bundle, "read_manifest", lambda _path: manifest)
    (one,) = describe_capacity(("gpu1", "gpu2"), seen(tmp_path))
    assert one.where == ("gpu1:chat", "gpu2:chat")
    assert one.plan
    assert (one.plan.fits, one.plan.capacity.tokens) == (True, 46592)
    monkeypatch.setattr(bundle, "read_manifest", lambda _path: replace(manifest, models=()))
    (lost,) = describe_capacity(("gpu1", "gpu2"), seen(tmp_path))
    assert (lost.plan, lost.problem) == (None, "its model is not in the bundle of this controller")


def test_a_page_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "site.html"
    refuse_target(target, overwrite=False)
    write_page(target, f"<html><head>{MARK}</head>one")
    refuse_target(target, overwrite=False)
    write_page(target, "two, without a mark")
    assert target.read_text(encoding="utf-8") == "two, without a mark"
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="is not a report; name another file, or give --overwrite"):
        refuse_target(target, overwrite=False)
    refuse_target(target, overwrite=True)
    for wrong, says in ((tmp_path, "it is a folder"), (tmp_path / "no" / "x.html", "its folder does not exist")):
        with pytest.raises(InputError, match=says):
            refuse_target(wrong, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["site.html"]


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "site.html"
    target.write_text("old", encoding="utf-8")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_page(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["site.html"]
    assert target.read_text(encoding="utf-8") == "old"
