"""Runs lock their hosts: real ansible-playbook processes over local connections, each host with a folder of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from rackserve import history
from rackserve.ansible.modules import run_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.needs("ssh-keygen")

ROOT = Path(__file__).parents[3]
OURS = ROOT / "python" / "src" / "rackserve" / "ansible"
LOCK = {"import_role": {"name": "stack", "tasks_from": "lock"}, "tags": ["always"]}
HOSTS = {
    "all": {
        "vars": {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
        },
        "children": {
            "vllm_hosts": {"hosts": {"gpu1": {}, "gpu2": {}}},
            "edge_hosts": {"hosts": {"edge1": {}}},
        },
    }
}
TELLS = """
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={"secret": {"no_log": True}})
record = {"kind": "gate", "gate": "token", "ok": True, "instance": "a", "seconds": 1.5}
module.exit_json(changed=True, rackserve_record=record, said="hush-hush")
"""
FOREIGN = {
    "run": "20200101T000000.000000Z-site-beef",
    "user": "alice",
    "host": "ctl-b",
    "machine": "f" * 32,
    "boot": "b",
    "pidns": "pid:[1]",
    "pid": 4242,
    "started": 7,
    "command": "site.yml",
    "since": "2026-11-30T03:14:00+00:00",
    "inventory": "lab",
    "key": "SHA256:x",
}


class Site:
    """An inventory of two vLLM hosts and an edge, and one controller."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[str]] = []
        (folder / "site.yml").write_text(json.dumps(HOSTS), encoding="utf-8")
        (folder / "state").mkdir()
        (folder / "library").mkdir()
        (folder / "library" / "tells.py").write_text(TELLS, encoding="utf-8")

    def start(self, *tasks: dict[str, Any], options: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
        """Start a playbook that locks the vLLM hosts and runs these tasks on them."""
        number = len(self.running)
        play = {"hosts": "vllm_hosts", "gather_facts": False}
        plays = [{**play, "tasks": [LOCK]}, {**play, "tasks": [{"file": self.touch(f"ran{number}")}, *tasks]}]
        path = self.folder / f"play{number}.yml"
        path.write_text(json.dumps(plays), encoding="utf-8")
        where = f"{self.folder}/h/{{{{ __stack_item | default(inventory_hostname) }}}}"
        command = [
            *(str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.folder / "site.yml"), str(path)),
            *("-e", json.dumps({"__stack_host_state": where}), *options),
        ]
        env = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_LIBRARY": f"{OURS / 'modules'}:{self.folder / 'library'}",
            "XDG_STATE_HOME": str(self.folder / "state"),
            **environment,
        }
        done = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.running.append(done)
        return done

    def run(self, *tasks: dict[str, Any], options: tuple[str, ...] = (), **environment: str) -> tuple[int, str]:
        """Run such a playbook to its end; return its exit code and what it said, in one line."""
        return ended(self.start(*tasks, options=options, **environment))

    def touch(self, name: str) -> dict[str, Any]:
        return {"path": f"{self.folder}/{name}.{{{{ inventory_hostname }}}}", "state": "touch"}

    def pause(self) -> dict[str, Any]:
        """Return a task that waits for `go`."""
        return {"shell": f"touch {self.folder}/paused; until [ -e {self.folder}/go ]; do sleep 0.1; done"}

    def until_paused(self) -> None:
        until((self.folder / "paused").exists)

    def lock_of(self, host: str) -> dict[str, Any] | None:
        return run_lock.read_holder(str(self.folder / "h" / host))

    def put_lock(self, host: str, **changes: Any) -> None:
        (self.folder / "h" / host).mkdir(parents=True, exist_ok=True)
        lock = {**FOREIGN, "taken": time.time() - 4 * 3600, "seen": time.time() - 3 * 3600 - 5, **changes}
        (self.folder / "h" / host / run_lock.HOLDER).write_text(json.dumps(lock), encoding="utf-8")

    def locks(self) -> list[str]:
        return [host for host in ("edge1", "gpu1", "gpu2") if self.lock_of(host)]

    def lines(self, host: str) -> list[dict[str, Any]]:
        return [json.loads(line)["entry"] for line in run_lock.history_lines(str(self.folder / "h" / host))]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=240)
    return process.returncode, " ".join(said.split())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    (tmp_path / "go").touch()
    for process in made.running:
        if process.poll() is None:
            process.kill()
        if process.stdout and not process.stdout.closed:
            process.communicate()


def test_of_two_plain_playbooks_one_proceeds_and_the_other_says_who_and_changes_nothing(site: Site) -> None:
    first = site.start(site.pause())
    site.until_paused()
    assert site.locks() == ["edge1", "gpu1", "gpu2"]
    code, said = site.run()
    holder = site.lock_of("gpu1")
    assert holder is not None
    assert code != 0
    assert "nothing was changed by this run: edge1, gpu1, gpu2: locked by" in said
    for fact in (holder["user"], holder["host"], f"process {first.pid}", holder["run"], holder["since"]):
        assert fact in said
    assert "it runs on this controller: wait for its end" in said
    assert not list(site.folder.glob("ran1*"))
    (site.folder / "go").touch()
    assert ended(first)[0] == 0
    assert site.locks() == []
    assert site.run()[0] == 0


def test_two_that_start_at_once_neither_both_proceed_nor_both_give_up(site: Site) -> None:
    both = [site.start(site.pause()), site.start(site.pause())]
    until(lambda: any(process.poll() is not None for process in both))
    site.until_paused()
    (site.folder / "go").touch()
    codes = sorted(ended(process)[0] for process in both)
    assert codes[0] == 0
    assert codes[1] != 0
    assert len({path.name.split(".")[0] for path in site.folder.glob("ran*")}) == 1


@pytest.mark.parametrize("options", [(), ("--tags", "one"), ("--limit", "gpu1")])
def test_a_run_that_fails_gives_its_locks_back_and_leaves_a_record(site: Site, options: tuple[str, ...]) -> None:
    code, said = site.run({"name": "Break", "command": "false", "tags": ["one"]}, options=options)
    assert code != 0, said
    assert site.locks() == []
    for path in site.folder.glob("state/rackserve/runs/*/record.json"):
        entry = json.loads(path.read_text())["entry"]
        assert (entry["outcome"], entry["failed"]["gpu1"]) == ("failed", "Break")
    assert [path.name for path in (site.folder / "h").iterdir()].count("gpu2") == (0 if "--limit" in options else 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_gives_its_locks_back(site: Site, number: int) -> None:
    first = site.start(site.pause())
    site.until_paused()
    first.send_signal(number)
    assert ended(first)[0] != 0
    assert site.locks() == []
    assert site.lines("gpu1")[0]["outcome"] == "interrupted"


def test_the_lock_of_a_killed_run_is_taken_over_with_a_line_that_says_so(site: Site) -> None:
    first = site.start(site.pause())
    site.until_paused()
    first.kill()
    first.wait()
    holder = site.lock_of("gpu1")
    assert holder is not None
    code, said = site.run()
    assert code == 0, said
    assert f"gpu1: took over the lock of {history.describe(holder)}: it ran on this controller and has ended" in said
    assert site.locks() == []
    record = next(one for one in site.lines("gpu1")[-1]["records"] if one["kind"] == "lock_taken_over")
    assert record["of"]["run"] == holder["run"]


def test_the_lock_of_another_controller_refuses_with_all_facts_until_it_is_broken_once(site: Site) -> None:
    site.put_lock("gpu2")
    code, said = site.run()
    assert code != 0
    expected = (
        "gpu2: locked by alice on ctl-b (process 4242, site.yml on the inventory lab, run 20200101T000000.000000Z-site-"
        "beef) since 2026-11-30T03:14:00+00:00 (4 h), last seen 3 h ago; wait for its end, or, only if that run is "
        "dead, break its lock: rackserve unlock gpu2 --reason TEXT (or -e stack_lock_break="
        "20200101T000000.000000Z-site-beef)"
    )
    assert expected in said
    assert site.locks() == ["gpu2"]
    assert not list(site.folder.glob("ran*"))

    broken = ("-e", f"stack_lock_break={FOREIGN['run']}", "-e", "stack_lock_reason='ctl-b burnt'")
    code, said = site.run(options=broken)
    assert code == 0, said
    record = next(one for one in site.lines("gpu2")[-1]["records"] if one["kind"] == "lock_broken")
    assert (record["of"]["user"], record["reason"]) == ("alice", "ctl-b burnt")
    assert not [one for one in site.lines("gpu1")[-1]["records"] if one["kind"] == "lock_broken"]

    site.put_lock("gpu2", run="20260101T000000.000000Z-site-cafe")
    assert site.run(options=broken)[0] != 0
    assert site.locks() == ["gpu2"]


def test_a_lock_file_that_cannot_be_read_refuses(site: Site) -> None:
    site.put_lock("gpu1")
    (site.folder / "h" / "gpu1" / run_lock.HOLDER).write_text("")
    code, said = site.run()
    assert code != 0
    assert "gpu1: locked by a run whose lock file cannot be read since" in said
    assert site.run(options=("-e", "stack_lock_break=unreadable"))[0] == 0


def test_a_running_run_of_this_controller_is_not_broken(site: Site) -> None:
    first = site.start(site.pause())
    site.until_paused()
    holder = site.lock_of("gpu1")
    assert holder is not None
    code, said = site.run(options=("-e", f"stack_lock_break={holder['run']}"))
    assert code != 0
    assert "it runs on this controller" in said
    assert site.lock_of("gpu1") == holder
    assert first.poll() is None


def test_check_mode_neither_takes_nor_needs_a_lock(site: Site) -> None:
    site.put_lock("gpu1")
    before = site.lock_of("gpu1")
    assert site.run(options=("--check",))[0] == 0
    assert site.lock_of("gpu1") == before
    assert site.locks() == ["gpu1"]
    assert not list(site.folder.glob("state/rackserve/runs/*"))


def test_a_run_whose_lock_was_broken_stops_at_its_next_playbook(site: Site) -> None:
    path = site.folder / "h" / "gpu1" / run_lock.HOLDER
    stolen = {"copy": {"content": json.dumps(FOREIGN), "dest": str(path)}, "run_once": True, "delegate_to": "gpu1"}
    code, said = site.run(stolen, LOCK, {"file": site.touch("after")})
    assert code != 0
    assert "locked by alice on ctl-b" in said
    assert not list(site.folder.glob("after*"))
    assert site.locks() == ["gpu1"]  # it was no longer this run's to give back


def test_no_lock_is_taken_where_nothing_would_give_it_back(site: Site) -> None:
    code, said = site.run(ANSIBLE_CALLBACK_PLUGINS=str(site.folder / "none"))
    assert code != 0
    assert "the callback plugin record_run is not loaded" in said
    assert site.locks() == []


def test_the_record_has_what_tasks_tell_and_nothing_that_no_log_hides(site: Site) -> None:
    told = {"name": "Measure", "tells": {"secret": "sesame"}}
    hidden = {"name": "Hide", "tells": {}, "no_log": True}
    assert site.run(told, hidden, {"name": "Loop", "tells": {}, "loop": [1]})[0] == 0
    record = next(site.folder.glob("state/rackserve/runs/*/record.json"))
    entry = json.loads(record.read_text())["entry"]
    assert [one["task"] for one in entry["records"] if one["host"] == "gpu1"] == ["Measure", "Loop"]
    assert entry["records"][0]["seconds"] == 1.5
    assert "hush" not in record.read_text()
    assert "sesame" not in record.read_text()
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.parent.name == entry["run"]
    assert site.lines("gpu2")[0]["changed"] == {"gpu2": 4}
    assert site.lines("edge1") == []
    assert (site.folder / "h/gpu1" / run_lock.HISTORY).stat().st_mode & 0o777 == 0o600


def test_a_command_names_the_folder_of_the_record(site: Site) -> None:
    folder = site.folder / "state" / "20260101T000000.000000Z-site-0123"
    assert site.run(RACKSERVE_RUN_DIR=str(folder))[0] == 0
    assert json.loads((folder / "record.json").read_text())["entry"]["run"] == folder.name


READS_ONLY = {"check_preflight", "compare_fleet", "read_locks", "verify_fleet"}
# Their first play asks which hosts answer, and their locks are of those: a dead host cannot be locked.
ASKS_FIRST = {"retire_hosts": {"retire_reached", "edge_hosts", "monitoring_hosts"}}


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda path: path.stem)
def test_every_playbook_that_changes_hosts_locks_all_of_them_first(path: Path) -> None:
    plays = yaml.safe_load(path.read_text(encoding="utf-8"))[path.stem in ASKS_FIRST :]
    task = (plays[0].get("tasks") or [{}])[0]
    locks = task.get("ansible.builtin.import_role") == {"name": "stack", "tasks_from": "lock"}
    assert locks == (path.stem not in READS_ONLY)
    if locks:
        assert task["tags"] == ["always"]
        groups = set(re.findall(r"groups\['(\w+)'\]", plays[0]["hosts"]))
        alone = {play["hosts"] for play in plays} == {plays[0]["hosts"]}
        assert plays[0]["hosts"] == "all" or alone or groups == ASKS_FIRST[path.stem]


def test_the_site_locks_its_hosts_before_it_changes_one() -> None:
    imported = [play["ansible.builtin.import_playbook"] for play in yaml.safe_load((ROOT / "site.yml").read_text())]
    assert imported[:2] == ["playbooks/check_preflight.yml", "playbooks/lock_hosts.yml"]
