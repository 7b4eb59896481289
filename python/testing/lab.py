"""The lab that the scenarios run on: `molecule`, unless `.ci/test` names that of one of its lanes."""

from __future__ import annotations

import os
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
