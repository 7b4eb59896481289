"""What the tests of every scenario share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from testing.lab import SSH_CONFIG, command

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

# The longest builds the modules of a driver.
PLAY_LIMIT_S = 3600


def pytest_configure(config: pytest.Config) -> None:
    """Have testinfra reach the hosts of the lab that this run is for."""
    config.option.ssh_config = config.option.ssh_config or str(SSH_CONFIG)


@pytest.fixture(scope="session")
def play() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a playbook of the project on the lab: path, variables, further options."""

    def run(
        playbook: str, variables: dict[str, object] | None = None, *options: str
    ) -> subprocess.CompletedProcess[str]:
        inventory, given = ("-i", "molecule/inventory"), ("-e", json.dumps(variables or {}))
        return command("ansible-playbook", playbook, *inventory, *given, *options, timeout=PLAY_LIMIT_S)

    return run
