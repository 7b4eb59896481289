"""A task that a host delegates to an edge reaches the edge: real ansible-playbook, and an ssh that notes its target."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SSH = """#!/bin/sh
for one; do case $one in Port=*) port=${one#Port=};; esac; done
while [ $# -gt 2 ]; do shift; done
echo "$1 ${port:-22}" >>"$REACHED"
exec /bin/sh -c "$2"
"""
WRITTEN: dict[str, dict[str, Any]] = {
    "with the name of the host": {"ansible_host": "{{ inventory_hostname }}.rack.invalid", "ansible_port": 2200},
    "in a table of ports": {"ansible_port": "{{ {'gpu1': 2201, 'edge1': 2200}[inventory_hostname] }}"},
    "not at all": {},
}
REACHED = {
    "with the name of the host": {"edge1.rack.invalid 2200"},
    "in a table of ports": {"edge1 2200"},
    "not at all": {"edge1 22"},
}


def reached(folder: Path, connection: dict[str, Any], *, evaluated: bool) -> set[str]:
    """Return address and port of what `gpu1` reaches when it delegates a task to `edge1`."""
    ssh, noted = folder / "ssh", folder / "reached"
    ssh.write_text(SSH, encoding="utf-8")
    ssh.chmod(0o755)
    hosts: dict[str, Any] = {"vllm_hosts": {"hosts": {"gpu1": {}}}, "edge_hosts": {"hosts": {"edge1": {}}}}
    (folder / "hosts.json").write_text(
        json.dumps({"all": {"vars": {**connection, "ansible_ssh_executable": str(ssh)}, "children": hosts}}),
        encoding="utf-8",
    )
    asked = {"raw": "true", "delegate_to": "{{ item }}", "loop": "{{ groups.edge_hosts }}", "changed_when": False}
    evaluates = [{"import_role": {"name": "stack", "tasks_from": "reach"}}] if evaluated else []
    plays = [{"hosts": "gpu1", "gather_facts": False, "tasks": [*evaluates, asked]}]
    (folder / "play.yml").write_text(json.dumps(plays), encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", folder / "hosts.json", folder / "play.yml"],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "REACHED": str(noted),
            "ANSIBLE_PIPELINING": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(noted.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("way", WRITTEN)
def test_an_edge_is_reached_however_the_inventory_writes_its_connection(tmp_path: Path, way: str) -> None:
    assert reached(tmp_path, WRITTEN[way], evaluated=True) == REACHED[way]


def test_without_the_evaluation_the_host_reaches_itself(tmp_path: Path) -> None:
    """Else this file shows nothing, and roles/stack/tasks/reach.yml can go."""
    assert reached(tmp_path, WRITTEN["with the name of the host"], evaluated=False) == {"gpu1.rack.invalid 2200"}
