"""The lab that the scenarios run on: `molecule`, unless `.ci/test` names that of one of its lanes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rackserve._paths import state_dir
from rackserve.lab import lab_dir

NAME = os.environ.get("RACKSERVE_TEST_LAB", "molecule")
PREFIX = os.environ.get("RACKSERVE_TEST_PREFIX", "10.89.1")
ROOT = Path(__file__).parents[2]
INVENTORY = ROOT / "molecule/inventory"
STATE = state_dir()
BUNDLE = Path(os.environ.get("RACKSERVE_BUNDLE") or STATE / "bundles/current")
FOLDER = lab_dir(NAME)
SSH_CONFIG = FOLDER / "ssh/config"


def command(*argv: str, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    """Run one of the controller's commands in the project's folder."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "0"}
    env["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, env=env, timeout=timeout)
