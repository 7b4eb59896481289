"""The playbook of the driver on stand-ins: hosts that serve leave the rotation for it, one at a time, and come back.

The role nvidia_driver, the engines and the edge are stand-ins, which write down what they are asked; plays, the role
rollout, the planner and the marks at the edge are the real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
GIVEN = {
    "ansible_connection": "local",
    "ansible_become": False,
    "stack_runtime": {"vllm": "0.32.0", "flavour": "cuda", "python": "3.11"},
    "stack_bundle_path": "/bundle",
    "stack_trust_file": "/trust.yml",
}
HEAD = """
import json, os
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_rotation import RotationError, marks_after, weights_of
host, folder = os.environ["HOST"], os.environ["STAND_IN"]
state = json.load(open(folder + "/state.json"))
def log(*words):
    print(*words, file=open(folder + "/log", "a"))
def keep():
    json.dump(state, open(folder + "/state.json", "w"))
def module(**spec):
    return AnsibleModule(argument_spec={key: {"type": kind} for key, kind in spec.items()}, supports_check_mode=True)
"""
MODULES = {
    "generation_facts": """
asked = module(read_by="dict")
names = ("environment", "probe", "settings")
one = {"name": "chat", "digest": "01", "unit": "vllm@chat.01.service", "task": "generate", "served_names": ["m"]}
there = {"live": "01", "active": state[host]["active"], "seconds": 50.0, "listens": "127.0.0.1:1", "before": {}}
there["generation"] = {**one, **dict.fromkeys(names, "e"), "visible": {}, "runtime": "/r", "config": {}, "engine": "/s"}
asked.exit_json(changed=False, instances={"chat": there}, stale=[], available=0, gpus=[])
""",
    "vllm_generation": """
asked = module(state="str", instances="list").params["state"]
state[host]["active"] = asked == "live"
keep()
log(host, asked)
module(state="str", instances="list").exit_json(changed=True)
""",
    "vllm_ready": """
asked = module(url="str", model="str", unit="str", task="str", timeout="int")
log(host, "answers")
asked.exit_json(changed=False)
""",
    "edge_rotation": """
asked = module(set="dict", by="str", run="str", wait="int", force="bool", read="bool")
labels = [label + ":chat" for label in state if label.startswith("gpu")]
table = {"groups": {"g": {"servers": labels, "models": ["m"]}}, "servers": dict.fromkeys(labels)}
marks, given = state["marks"], asked.params
if not given["read"]:
    wanted = {label: int(weight) for label, weight in given["set"].items()}
    try:
        after = marks_after(table, marks, wanted, by="rollout", run=given["run"], now="", force=bool(given["force"]))
    except RotationError as wrong:
        asked.fail_json(msg=str(wrong))
    if after != marks:
        log("edge", *(f"{label} {weight}" for label, weight in wanted.items()))
        state["marks"] = after
        keep()
names = {label: ["m"] for label in labels}
told = {"before": marks, "after": state["marks"], "weights": weights_of(table, state["marks"]), "names": names}
told |= {"streams": given["wait"] and state["streams"], "addresses": dict.fromkeys(labels, "127.0.0.1:1")}
asked.exit_json(changed=False, installed=True, **told)
""",
}
ROLE: dict[str, list[dict[str, Any]]] = {
    "changes": [{"ansible.builtin.set_fact": {"__nvidia_driver_change": "{{ change }}"}}],
    "main": [
        {"ansible.builtin.shell": "echo $HOST driver >> $STAND_IN/log"},
        {"ansible.builtin.fail": {"msg": "no module was built"}, "when": "breaks | default(false)"},
        {
            "ansible.builtin.set_fact": {
                "__nvidia_driver_reboot_required": True,
                "__nvidia_driver_reboot_reasons": ["570.1 is loaded"],
            },
            "when": "reboots | default(false)",
        },
        {"ansible.builtin.meta": "end_host", "when": "reboots | default(false)"},
    ],
    "back": [
        {"ansible.builtin.shell": "echo $HOST driver from before >> $STAND_IN/log"},
        {"ansible.builtin.fail": {"msg": "nor was this one"}, "when": "stuck | default(false)"},
    ],
}
SAME: dict[str, Any] = {"words": [], "waits": [], "back": {}, "seconds": 1200}
OTHER = {**SAME, "words": ["driver 570.1 -> 580.1"], "back": {"version": "570.1", "modules": "open"}}
GOES = ["edge {}:chat 0", "{} stopped", "{} driver"]
COMES = ["{} live", "{} answers", "edge {}:chat 100"]


def steps(host: str, *parts: list[str]) -> list[str]:
    return [step.format(host) for part in parts for step in part]


class Site:
    """Two hosts that serve the same name behind an edge, on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: dict[str, dict[str, Any]] = {"gpu1": {"change": SAME}, "gpu2": {"change": SAME}}
        self.state: dict[str, Any] = {"gpu1": {"active": True}, "gpu2": {"active": True}}
        self.state |= {"marks": [], "streams": 0}
        (folder / "library").mkdir()
        for name, text in MODULES.items():
            (folder / f"library/{name}.py").write_text(HEAD + text)
        tasks = folder / "roles/nvidia_driver/tasks"
        tasks.mkdir(parents=True)
        for name, said in ROLE.items():
            (tasks / f"{name}.yml").write_text(json.dumps(said))
        (folder / "roles/nvidia_driver/meta").mkdir()
        (folder / "roles/nvidia_driver/meta/main.yml").write_text(json.dumps({"dependencies": [{"role": "stack"}]}))

    def mark(self, label: str, by: str, run: str = "") -> None:
        self.state["marks"].append({"label": label, "by": by, "run": run, "weight": 0, "since": "2027-01-31T12:00:00Z"})

    def play(self, **variables: Any) -> tuple[str, list[str]]:
        """Run the playbook; return what it said on one line, empty where all is well, and what was done."""
        for host in (*self.hosts, "edge1"):
            python = self.folder / f"{host}-python"
            python.write_text(f'#!/bin/sh\nHOST={host} exec {sys.executable} "$@"\n')
            python.chmod(0o755)
        (self.folder / "state.json").write_text(json.dumps(self.state))
        (self.folder / "log").write_text("")
        given = {
            host: {**own, "ansible_python_interpreter": str(self.folder / f"{host}-python")}
            for host, own in {**self.hosts, "edge1": {}}.items()
        }
        groups = {
            "vllm_hosts": {"hosts": {host: given[host] for host in self.hosts}},
            "edge_hosts": {"hosts": {"edge1": given["edge1"]}},
        }
        inventory = {"all": {"children": groups, "vars": {**GIVEN, **variables}}}
        (self.folder / "hosts.yml").write_text(json.dumps(inventory))
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_ROLES_PATH": f"{self.folder}/roles:{ROOT}/roles",
            "ANSIBLE_LIBRARY": f"{self.folder}/library:{ROOT}/python/src/rackserve/ansible/modules",
            "STAND_IN": str(self.folder),
        }
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.folder / "hosts.yml")]
        command += [str(ROOT / "playbooks/install_driver.yml"), "--skip-tags", "always"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        self.state = json.loads((self.folder / "state.json").read_text())
        said = " ".join(f"{done.stdout} {done.stderr}".split()) if done.returncode else ""
        return said, (self.folder / "log").read_text().splitlines()

    def out(self) -> list[tuple[str, str]]:
        return [(mark["label"], mark["by"]) for mark in self.state["marks"]]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_hosts_that_serve_and_change_leave_the_rotation_one_at_a_time(site: Site) -> None:
    site.hosts = {"gpu1": {"change": OTHER}, "gpu2": {"change": OTHER}}
    said, did = site.play()
    assert said == ""
    assert did == steps("gpu1", GOES, COMES) + steps("gpu2", GOES, COMES)
    assert site.out() == []


def test_hosts_that_stay_or_serve_nothing_are_not_drained(site: Site) -> None:
    site.hosts["gpu2"] = {"change": OTHER}
    site.state["gpu2"]["active"] = False
    assert site.play() == ("", ["gpu1 driver", "gpu2 driver"])


def test_a_failure_returns_the_host_and_leaves_the_others(site: Site) -> None:
    site.hosts = {"gpu1": {"change": OTHER, "breaks": True}, "gpu2": {"change": OTHER}}
    said, did = site.play()
    assert "gpu1 was returned to driver 570.1, and no further host was changed." in said
    assert "no module was built. To stay at this driver set nvidia_driver_version: 570.1" in said
    assert did == steps("gpu1", GOES, ["{} driver from before"], COMES)
    assert site.out() == []


def test_a_host_that_cannot_return_stays_out_until_a_later_run(site: Site) -> None:
    site.hosts = {"gpu1": {"change": OTHER, "breaks": True, "stuck": True}, "gpu2": {"change": OTHER}}
    said, did = site.play()
    assert "gpu1 is out of service, and no further host was changed." in said
    assert "no module was built; on the way back, " in said
    assert "--limit gpu1 --extra-vars nvidia_driver_version=570.1" in said
    assert did == steps("gpu1", GOES, ["{} driver from before"])
    assert site.out() == [("gpu1:chat", "rollout")]
    site.hosts = {"gpu1": {"change": SAME}, "gpu2": {"change": SAME}}
    said, did = site.play()
    assert (said, site.out()) == ("", [])
    assert did == ["gpu2 driver", *steps("gpu1", ["{} driver"], COMES)]


def test_the_last_instance_of_a_name_needs_consent(site: Site) -> None:
    site.hosts["gpu1"] = {"change": OTHER}
    site.mark("gpu2:chat", "operator")
    said, did = site.play()
    assert "'m' would have no instance in rotation while gpu1:chat is changed; that takes about" in said
    assert did == []
    said, did = site.play(stack_rollout_consent="agreed")
    assert (said, did) == ("", ["gpu2 driver", *steps("gpu1", GOES, COMES)])


def test_a_host_that_would_wait_for_a_reboot_is_refused_unless_an_operator_has_drained_it(site: Site) -> None:
    site.hosts["gpu1"] = {"change": {**OTHER, "waits": ["570.1 is loaded"]}, "reboots": True}
    said, did = site.play()
    assert "nothing was changed: gpu1 serves, and its new driver needs a reboot (570.1 is loaded); set nvidia" in said
    assert did == []
    site.mark("gpu1:chat", "operator")
    said, did = site.play()
    assert "gpu1 must be rebooted before its driver can serve: 570.1 is loaded" in said
    assert did == ["gpu2 driver", "gpu1 stopped", "gpu1 driver"]
    assert site.out() == [("gpu1:chat", "operator")]


def test_no_host_follows_one_that_waits_for_its_reboot(site: Site) -> None:
    site.hosts = {"gpu1": {"change": OTHER, "reboots": True}, "gpu2": {"change": OTHER}}
    site.mark("gpu1:chat", "operator")
    said, did = site.play(stack_rollout_consent="agreed")
    assert (
        "gpu2 and the hosts after it were not changed, because gpu1 is out of service until its reboot: 570.1" in said
    )
    assert did == ["gpu1 stopped", "gpu1 driver"]


def test_a_host_whose_streams_do_not_end_is_left_as_it_was(site: Site) -> None:
    site.hosts["gpu1"] = {"change": OTHER}
    site.state["streams"] = 2
    said, did = site.play()
    assert "gpu1 was left as it was, and no further host was changed." in said
    assert did == ["gpu2 driver", "edge gpu1:chat 0", *steps("gpu1", COMES)]
    assert site.out() == []


def test_what_a_rollout_left_drained_stays_so(site: Site) -> None:
    site.mark("gpu1:chat", "rollout", "20270131T120000Z")
    assert site.play() == ("", ["gpu1 driver", "gpu2 driver"])
    assert site.out() == [("gpu1:chat", "rollout")]
