"""The edge, real engines behind it, and a stand-in for one; what sends requests from the edge is that of `nginx`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from testinfra import get_host

from testing.fleet import Gpus
from testing.generations import engine_unit
from testing.lab import FOLDER, PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator


HERE = Path(__file__).parent
UNIT, PROXY = engine_unit("smollm2"), "vllm-proxy@smollm2.socket"
# As a small model on one GPU: milliseconds to the first token, and between tokens.
PACE = (40, 20)


@pytest.fixture(scope="session")
def gpus(request: pytest.FixtureRequest) -> Gpus:
    """Return the hosts of engines."""
    config = request.config.getoption("--ssh-config")
    return Gpus({name: get_host(f"ssh://{name}", ssh_config=config) for name in ("gpu1", "gpu2")})


@pytest.fixture(scope="session")
def network() -> str:
    """Return the first three numbers of the lab's addresses."""
    return PREFIX


@pytest.fixture(scope="session")
def authority() -> Path:
    """Return the certificate that clients of the lab trust."""
    return FOLDER / "pki/ca.crt"


@pytest.fixture(scope="module")
def real(gpus: Gpus) -> None:
    """Have both engines serve."""
    gpus.run(f"systemctl start --no-block {UNIT}")
    gpus.wait(f"systemctl is-active {PROXY}", 400)


@pytest.fixture
def paced(gpus: Gpus, network: str) -> Iterator[None]:
    """Have no engine run but the stand-in, on gpu2."""
    gpus.run(f"systemctl stop {UNIT}")
    code = shlex.quote((HERE / "paced_engine.py").read_text(encoding="utf-8"))
    pace = " ".join(map(str, PACE))
    gpus["gpu2"].check_output(f"systemd-run --quiet --unit=paced python3 -c {code} {network}.12 7001 {pace}")
    time.sleep(1)
    yield
    gpus["gpu2"].run("systemctl stop paced; systemctl reset-failed paced")
