"""What the tests of every scenario share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testing.lab import ROOT, SSH_CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_configure(config: pytest.Config) -> None:
    """Have testinfra reach the hosts of the lab that this run is for."""
    config.option.ssh_config = config.option.ssh_config or str(SSH_CONFIG)


@pytest.fixture(scope="session")
def play() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a playbook of the project on the lab: path, variables, further options."""

    def run(
        playbook: str, variables: dict[str, object] | None = None, *options: str
    ) -> subprocess.CompletedProcess[str]:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        return subprocess.run(
            [program, playbook, "-i", "molecule/inventory", "-e", json.dumps(variables or {}), *options],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
