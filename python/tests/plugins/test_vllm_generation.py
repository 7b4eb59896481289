"""A switch of generations is one rename, interruptible at every step, and nothing that is used is removed."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rackserve.ansible.module_utils import rackserve_generations as rg
from rackserve.ansible.modules import generation_facts, vllm_generation

OLD, NEW, THIRD, FOURTH = "0000000001", "0000000002", "0000000003", "0000000004"


class Host:
    """Folders of a host, and a systemd that does what it is told."""

    def __init__(self, root: Path) -> None:
        self.root, self.units, self.vllm = root / "instances", root / "units", root / "vllm"
        for folder in (self.root, self.units, self.vllm / "releases"):
            folder.mkdir(parents=True)
        self.did: list[str] = []
        self.active: set[str] = set()
        self.fails: set[str] = set()
        self.enabled: set[str] = set()

    def put(self, name: str, digest: str, *, runtime: str = "r1", joined: str = "same", complete: bool = True) -> None:
        folder = self.root / name / "generations" / digest
        folder.mkdir(parents=True)
        (folder / "join.conf").write_text(joined)
        release = self.vllm / "releases" / runtime
        release.mkdir(exist_ok=True)
        (self.units / f"vllm@{name}.{digest}.service").write_text("")
        (self.units / f"vllm@{name}.{digest}.service.d").mkdir()
        if complete:
            (folder / "generation.json").write_text(json.dumps({"runtime": str(release)}, indent=4))
        os.utime(folder, (int(digest), int(digest)))

    def link(self, name: str, link: str = "current") -> str:
        return rg.linked(name, link, str(self.root))

    def run(self, argv: list[str], _env: Any = None) -> tuple[int, str, str]:
        if argv[0] != "systemctl":
            return 0, "the journal", ""
        words = [word for word in argv[1:] if not word.startswith("--")]
        verb, units = words[0], words[1:]
        if verb == "show":
            key = next(word for word in argv if word.startswith("--property=")).partition("=")[2]
            return 0, self.shown(units[0], key), ""
        self.did.append(" ".join(words))
        for unit in units:
            if verb == "stop":
                self.active.discard(unit)
            elif verb == "start" and unit not in self.fails:
                self.active.add(unit)
            elif verb in {"enable", "disable"}:
                (self.enabled.add if verb == "enable" else self.enabled.discard)(unit)
        return 0, "", ""

    def shown(self, unit: str, key: str) -> str:
        values = {
            "ActiveState": "active" if unit in self.active else "failed" if unit in self.fails else "inactive",
            "UnitFileState": "enabled" if unit in self.enabled else "disabled",
            "NRestarts": "0",
            "Job": "",
        }
        return values.get(key, "") + "\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    for name in ("instance_folder", "instances", "linked", "generations"):
        monkeypatch.setattr(vllm_generation, name, partial(getattr(rg, name), root=str(made.root)))
    monkeypatch.setattr(vllm_generation, "units_of", lambda name: rg.units_of(name, str(made.units)))
    monkeypatch.setattr(vllm_generation, "UNITS", str(made.units))
    monkeypatch.setattr(vllm_generation, "run", made.run)
    monkeypatch.setattr(vllm_generation, "_PAUSE_S", 0.0)
    for name in ("_GOLDEN", "_RECORD", "_METRICS"):
        monkeypatch.setattr(vllm_generation, name, str(tmp_path / name))
    return made


def act(state: str, *entries: tuple[str, str], **options: Any) -> dict[str, Any]:
    params = {
        "overlap": False,
        "restart": False,
        "settle": 0.0,
        "timeout": 1,
        "keep": 3,
        "runtimes": "",
        "templates": "",
    }
    listed = [{"name": name, "digest": digest} for name, digest in entries]
    return vllm_generation.act({**params, "state": state, "instances": listed, **options})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def unit(digest: str, name: str = "a") -> str:
    return rg.unit_of(name, digest)


def test_a_first_generation_is_enabled_and_started(host: Host) -> None:
    host.put("a", OLD)
    assert act("live", ("a", OLD))["changed"]
    assert (host.link("a"), host.link("a", "previous"), host.enabled) == (OLD, "", {unit(OLD)})
    assert unit(OLD) in host.active
    assert not act("live", ("a", OLD))["changed"]


def test_another_one_stops_the_engine_before_and_is_enabled_before_the_rename(host: Host) -> None:
    host.put("a", OLD)
    host.put("a", NEW)
    act("live", ("a", OLD))
    host.did.clear()
    assert act("live", ("a", NEW))["changed"]
    assert (host.link("a"), host.link("a", "previous")) == (NEW, OLD)
    assert host.did == [
        f"stop {unit(OLD)}",
        f"enable {unit(NEW)}",
        f"disable {unit(OLD)}",
        f"reset-failed {unit(NEW)}",
        f"start {unit(NEW)}",
    ]
    act("live", ("a", OLD))
    assert (host.link("a"), host.link("a", "previous"), host.enabled) == (OLD, NEW, {unit(OLD)})


@pytest.mark.parametrize("previous", ["", OLD])
def test_a_return_never_leaves_what_failed_as_the_way_back(host: Host, previous: str) -> None:
    for digest in (OLD, NEW, FOURTH):
        host.put("a", digest)
    act("live", ("a", NEW))
    act("live", ("a", FOURTH))
    entry = {"name": "a", "digest": NEW, "previous": previous}
    assert act("live", instances=[entry])["changed"]
    assert (host.link("a"), host.link("a", "previous")) == (NEW, previous)


def test_engines_that_make_room_are_stopped_at_once(host: Host) -> None:
    for name in ("a", "b"):
        host.put(name, OLD)
        host.put(name, NEW)
    act("live", ("a", OLD), ("b", OLD))
    host.did.clear()
    act("live", ("a", NEW), ("b", NEW))
    assert host.did[0] == f"stop {unit(OLD)} {unit(OLD, 'b')}"


def test_a_stopped_engine_of_the_live_generation_is_started_again(host: Host) -> None:
    host.put("a", OLD)
    act("live", ("a", OLD))
    host.active.clear()
    assert act("live", ("a", OLD))["changed"]
    assert unit(OLD) in host.active


def test_a_restart_stops_and_starts_the_live_one(host: Host) -> None:
    host.put("a", OLD)
    act("live", ("a", OLD))
    host.did.clear()
    assert act("live", ("a", OLD), restart=True)["changed"]
    assert [did.split()[0] for did in host.did] == ["stop", "enable", "reset-failed", "start"]


def test_an_incomplete_generation_never_goes_live(host: Host) -> None:
    host.put("a", OLD)
    host.put("a", NEW, complete=False)
    act("live", ("a", OLD))
    with pytest.raises(vllm_generation.SwitchError, match=f"a has no complete generation {NEW}"):
        act("live", ("a", NEW), overlap=True)
    assert (host.link("a"), unit(OLD) in host.active) == (OLD, True)


def test_beside_the_live_one_both_run_until_the_old_one_is_ended(host: Host) -> None:
    host.put("a", OLD)
    host.put("a", NEW)
    act("live", ("a", OLD))
    assert act("candidate", ("a", NEW))["changed"]
    assert (host.link("a"), host.link("a", "candidate"), host.active) == (OLD, NEW, {unit(OLD), unit(NEW)})
    act("live", ("a", NEW), overlap=True)
    assert (host.link("a"), host.link("a", "candidate")) == (NEW, "")
    assert {unit(OLD), unit(NEW)} <= host.active
    assert act("ended", ("a", NEW))["changed"]
    assert unit(OLD) not in host.active
    assert unit(NEW) in host.active
    assert not act("ended", ("a", NEW))["changed"]


@pytest.mark.parametrize(("pages", "looks"), [(["", "busy", "idle"], 3), (["idle"], 1)])
def test_an_engine_that_does_not_tell_is_not_ended_as_idle(
    host: Host, monkeypatch: pytest.MonkeyPatch, pages: list[str], looks: int
) -> None:
    host.put("a", OLD)
    host.put("a", NEW)
    act("live", ("a", OLD))
    act("candidate", ("a", NEW))
    act("live", ("a", NEW), overlap=True)
    told = {"": "", "busy": "vllm:num_requests_running{} 1.0\n", "idle": "vllm:num_requests_running{} 0.0\n"}
    left = list(pages)
    monkeypatch.setattr(vllm_generation, "read_page", lambda _: told[left.pop(0)])
    assert act("ended", ("a", NEW), timeout=60)["changed"]
    assert len(pages) - len(left) == looks
    assert unit(OLD) not in host.active


def test_a_candidate_that_becomes_live_alone_has_its_listener_opened(host: Host) -> None:
    host.put("a", OLD)
    host.put("a", NEW)
    act("live", ("a", OLD))
    act("candidate", ("a", NEW))
    host.did.clear()
    act("live", ("a", NEW))
    assert host.did[-1] == "start vllm-proxy@a.socket"
    assert host.did[0] == f"stop {unit(OLD)}"


def test_a_candidate_without_a_token_is_stopped_and_the_live_one_stays(host: Host) -> None:
    host.put("a", OLD)
    host.put("a", NEW)
    act("live", ("a", OLD))
    host.fails.add(unit(NEW))
    with pytest.raises(vllm_generation.SwitchError, match=r"generated no token in 1 s and was stopped.*\nthe journal"):
        act("candidate", ("a", NEW))
    assert (host.link("a"), host.link("a", "candidate"), host.active) == (OLD, "", {unit(OLD)})


def test_a_candidate_that_failed_its_gates_is_ended(host: Host) -> None:
    host.put("a", OLD)
    host.put("a", NEW)
    act("live", ("a", OLD))
    act("candidate", ("a", NEW))
    assert act("ended", ("a", OLD))["changed"]
    assert (host.link("a"), host.link("a", "candidate"), host.active) == (OLD, "", {unit(OLD)})


def test_only_another_address_of_the_engine_restarts_the_proxy(host: Host) -> None:
    host.put("a", OLD)
    host.put("a", NEW)
    host.put("a", THIRD, joined="other")
    act("live", ("a", OLD))
    act("live", ("a", NEW))
    assert not any("try-restart" in did for did in host.did)
    act("live", ("a", THIRD))
    assert "try-restart vllm-proxy@a.service" in host.did


def test_the_last_generations_are_kept_and_never_one_that_is_used(host: Host) -> None:
    for number, digest in enumerate((OLD, NEW, THIRD, FOURTH)):
        host.put("a", digest, runtime=f"r{number}")
    host.put("b", OLD, runtime="r0")
    act("live", ("a", OLD), ("b", OLD))
    act("live", ("a", FOURTH), runtimes=str(host.vllm))
    removed = act("kept", ("a", FOURTH), keep=3, runtimes=str(host.vllm))["removed"]
    assert not [path for path in removed if OLD in path or FOURTH in path]
    assert [Path(path).name for path in removed] == [unit(NEW), f"{unit(NEW)}.d", NEW, "r1"]
    assert names(host.vllm / "releases") == ["r0", "r2", "r3"]
    assert str((host.vllm / "current").readlink()) == "releases/r3"
    act("kept", ("a", FOURTH), keep=0, runtimes=str(host.vllm))
    assert names(host.root / "a/generations") == [OLD, FOURTH]
    assert names(host.vllm / "releases") == ["r0", "r3"], "b runs r0"


def test_drop_ins_of_an_instance_count_for_each_of_its_generations(host: Host) -> None:
    host.put("a", OLD)
    shared, own = host.units / "vllm@a.service.d", host.units / f"{unit(OLD)}.d"
    shared.mkdir()
    (shared / "20-site.conf").write_text("[Service]\n")
    act("live", ("a", OLD))
    assert names(own) == ["20-site.conf"]
    assert "daemon-reload" in host.did
    (shared / "30-site.conf").write_text("[Service]\n")
    assert act("live", ("a", OLD))["changed"], "the next start of a running engine reads it too"
    assert not act("live", ("a", OLD))["changed"]
    (shared / "20-site.conf").unlink()
    act("live", ("a", OLD), restart=True)
    assert names(own) == ["30-site.conf"]


def test_a_removed_instance_leaves_nothing_and_another_one_of_the_same_beginning_stays(host: Host) -> None:
    for name in ("a", "a-b"):
        host.put(name, OLD)
    act("live", ("a", OLD), ("a-b", OLD))
    assert act("absent", ("a", ""))["changed"]
    assert host.active == {unit(OLD, "a-b")}
    assert not [path for path in host.root.parent.rglob("*") if path.name.startswith(("vllm@a.", "a."))]
    assert (host.root / "a-b").exists()
    assert not (host.root / "a").exists()


def test_check_mode_says_what_would_be_and_changes_nothing(host: Host) -> None:
    host.put("a", OLD)
    params = {"state": "live", "instances": [{"name": "a", "digest": OLD}], "keep": 3, "runtimes": "", "templates": ""}
    assert vllm_generation.would(params)["changed"]
    assert (host.link("a"), host.did) == ("", [])
    act("live", ("a", OLD))
    assert not vllm_generation.would(params)["changed"]


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("", None),
        ("up 1\n", None),
        ('vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_waiting{engine="0"} 1.0\n', 3.0),
        ('vllm:num_requests_running{engine="0"} 0.0\nvllm:num_requests_waiting_by_reason{r="x"} 5.0\n', 0.0),
        ("vllm:num_requests_running{} x\n", None),
    ],
)
def test_the_requests_of_an_engine_are_counted(page: str, found: float | None) -> None:
    assert vllm_generation.requests_in(page) == found


def test_the_state_of_an_instance_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation_facts, "generations", lambda _: {OLD: {"model": "m"}})
    monkeypatch.setattr(generation_facts, "linked", lambda _, link: {"current": OLD}.get(link, ""))
    shown = "ActiveState=active\nExecMainStartTimestampMonotonic=1000000\nActiveEnterTimestampMonotonic=51500000\n"
    running = [unit(OLD), unit(NEW), unit(THIRD, "a-b")]
    found = generation_facts.state_of("a", f"{shown}MemoryCurrent=7\n", running)
    assert found["others"] == [unit(NEW)]
    assert (found["live"], found["active"], found["seconds"], found["memory"]) == (OLD, True, 50.5, 7)
    assert (found["generation"], found["complete"]) == ({"model": "m"}, [OLD])
    down = generation_facts.state_of("a", "ActiveState=inactive\nMemoryCurrent=[not set]\n", [])
    assert (down["active"], down["seconds"], down["memory"]) == (False, 0.0, 0)
    assert generation_facts.available_memory("MemTotal: 9 kB\nMemAvailable:    2 kB\n") == 2048


def test_all_engines_of_a_host_are_stopped_at_once_and_started_again(host: Host) -> None:
    for name in ("a", "b", "c"):
        host.put(name, OLD)
    host.put("a", NEW)
    act("live", ("a", OLD), ("b", OLD))
    act("candidate", ("a", NEW))
    host.did.clear()
    assert act("stopped", ("a", ""), ("b", ""), ("c", ""))["changed"]
    assert (host.did, host.active) == ([f"stop {unit(OLD)} {unit(NEW)} {unit(OLD, 'b')}"], set())
    assert not act("stopped", ("a", ""), ("b", ""), ("c", ""))["changed"]
    assert act("live", ("a", OLD))["changed"]
    assert host.active == {unit(OLD)}
