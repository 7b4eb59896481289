"""A controller that is killed at any moment of a rollout leaves nothing that its next run does not put right.

`ROLLOUT_KILLS` sets how many moments there are; they are spread over the tasks of a whole run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from testing.rollout_fixtures import RESULTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from testing.rollout_fleet import Fleet
    from testing.rollout_site import Site

KILLS = int(os.environ.get("ROLLOUT_KILLS", "10"))
# What is before them looks at the hosts and copies to them; a few moments of it are enough.
FIRST_SHARE = 0.3
HEADER = b"\nTASK ["
SIZES = (6, 8)


def headers(log: Path) -> list[bytes]:
    return log.read_bytes().split(HEADER)[1:]


def run_until(site: Site, log: Path, header: int | None) -> int | None:
    """Run the play, and kill it when so many tasks have begun; return its exit, None for a killed one."""
    program = site.start(log)
    while program.poll() is None:
        if header is not None and len(headers(log)) >= header:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
            return None
        time.sleep(0.05)
    return program.returncode


@pytest.fixture(scope="module")
def tasks(site: Site, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Return how many tasks a whole rollout has."""
    log = tmp_path_factory.mktemp("whole") / "log"
    site.bring(instance={"max_num_seqs": SIZES[1]})
    site.change({"max_num_seqs": SIZES[0]})
    assert run_until(site, log, None) == 0, log.read_text()[-5000:]
    return len(headers(log))


@pytest.mark.parametrize("moment", range(KILLS))
def test_the_next_run_leaves_no_host_drained(
    site: Site, fleet: Fleet, under_traffic: Callable[..., Any], tasks: int, moment: int
) -> None:
    log = RESULTS / f"killed-{moment}.log"
    header = round(tasks * (FIRST_SHARE + (1 - FIRST_SHARE) * moment / KILLS))
    # The one before has left them at the other size.
    site.change({"max_num_seqs": SIZES[(moment + 1) % 2]})
    with under_traffic(f"killed {moment}", requests=0) as seen:
        killed = run_until(site, log, header)
        left = (fleet.live(), fleet.out())
        done = site.apply()
    at = headers(log)[-1].splitlines()[0].decode()
    sys.stdout.write(f"\n[measured] killed at task {header} of {tasks} ({at}); left {left}\n")
    assert killed is None, "it was killed, and had not ended before"
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert fleet.out() == set()
    assert len(set(fleet.live().values())) == 1, "both hosts have the same generation"
    assert {host: len(fleet.engines(host)) for host in fleet} == dict.fromkeys(fleet, 1)
    fleet.serve(5)
    assert seen.summary.failed == 0, seen.summary.text()
