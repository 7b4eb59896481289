"""Filters are loaded by Ansible's main process, not by each task's worker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILTER = """
import os
IMPORTED_BY = os.getpid()

class FilterModule:
    def filters(self):
        return {"imported_by": lambda _: f"imported_by={IMPORTED_BY} worker={os.getpid()};"}
"""
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ '' | imported_by }}"
    - ansible.builtin.debug:
        msg: "{{ '' | imported_by }}"
"""


@pytest.mark.parametrize("preloaded", [True, False])
def test_a_worker_finds_the_filters_loaded(tmp_path: Path, *, preloaded: bool) -> None:
    filters = tmp_path / "filters"
    filters.mkdir()
    (filters / "imported_by.py").write_text(FILTER, encoding="utf-8")
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
    ours = ROOT / "python" / "src" / "rackserve" / "ansible"
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_FILTER_PLUGINS": f"{filters}:{ours / 'filters'}",
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
    }
    if not preloaded:
        environment["ANSIBLE_CALLBACK_PLUGINS"] = str(filters)
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(tmp_path / "play.yml")]

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120)

    pairs = re.findall(r"imported_by=(\d+) worker=(\d+);", done.stdout)
    assert len(pairs) == 2
    importers, workers = {importer for importer, _ in pairs}, {worker for _, worker in pairs}
    assert len(workers) == 2
    assert (importers.isdisjoint(workers), len(importers)) == ((True, 1) if preloaded else (False, 2))
