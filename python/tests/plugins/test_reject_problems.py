"""A task fails with the problems that it is given, and computes them once whether it fails or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from rackserve.ansible import action
from rackserve.ansible.action.reject_problems import ActionModule

if TYPE_CHECKING:
    from collections.abc import Mapping

FILTER = """
def computed(path, problems):
    with open(path, "a") as file:
        file.write("once\\n")
    return problems

class FilterModule:
    def filters(self):
        return {"computed": computed}
"""
PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - reject_problems:
        problems: "{{ '%s' | computed(%s) }}"
        msg: "cannot be used: {problems}"
"""


def run(args: Mapping[str, Any]) -> dict[str, Any]:
    task = Mock(args=args, async_val=0, check_mode=False, diff=False)
    return ActionModule(task, *(Mock() for _ in range(5))).run()


@pytest.mark.parametrize("problems", [[], ""])
def test_no_problem_is_no_failure(problems: object) -> None:
    assert run({"problems": problems, "msg": "wrong: {problems}"}) == {"changed": False}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"problems": ["a", "b {x}"], "msg": "wrong: {problems}; set {c}"}, "wrong: a; b {x}; set {c}"),
        ({"problems": "table", "msg": "wrong:\n{problems}"}, "wrong:\ntable"),
        ({"problems": [8]}, "8"),
    ],
)
def test_problems_fail_with_their_message(args: dict[str, Any], message: str) -> None:
    assert run(args) == {"failed": True, "msg": message}


@pytest.mark.parametrize(("problems", "failed"), [("", False), ("table", True)])
def test_notes_are_warnings_and_fail_nothing(problems: str, *, failed: bool) -> None:
    found = run({"problems": {"problems": problems, "notes": ["the kernel is new"]}, "msg": "wrong: {problems}"})
    assert found["warnings"] == found["notes"] == ["this host: the kernel is new"]
    assert (found.get("failed", False), found.get("msg")) == (failed, "wrong: table" if failed else None)


@pytest.mark.parametrize(("problems", "code"), [([], 0), (["the signature"], 2)])
def test_problems_are_computed_once(tmp_path: Path, problems: list[str], code: int) -> None:
    count = tmp_path / "count"
    (tmp_path / "filters.py").write_text(FILTER)
    (tmp_path / "play.yml").write_text(PLAY % (count, problems))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", tmp_path / "play.yml"],
        env={
            **os.environ,
            "ANSIBLE_ACTION_PLUGINS": str(Path(next(iter(action.__path__)))),
            "ANSIBLE_FILTER_PLUGINS": str(tmp_path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("cannot be used: the signature" in done.stdout) == bool(problems)
    assert count.read_text() == "once\n"
