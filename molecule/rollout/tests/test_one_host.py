"""With one host and one model, a new engine starts beside the old one, and no request fails."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from testing.rollout_fleet import Fleet
from testing.rollout_site import Site
from testing.rollout_traffic import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, site: Site, fleet: Fleet) -> tuple[Site, Fleet]:
    """Return an inventory with gpu1 only, and have the edge know no other host."""
    own = Site(tmp_path_factory.mktemp("alone") / "inventory", hosts=("gpu1",), stack_rollout_soak=20)
    own.bundle = site.bundle
    own.bring()
    return own, Fleet({"gpu1": fleet["gpu1"]}, fleet.edge)


def test_a_change_beside_the_old_engine_fails_no_request(
    alone: tuple[Site, Fleet], under_traffic: Callable[..., Any]
) -> None:
    site, fleet = alone
    site.bring()
    old, most, ended = fleet.live(), [0], threading.Event()

    def count() -> None:
        while not ended.is_set():
            most[0] = max(most[0], len(fleet.engines("gpu1")))
            time.sleep(2)

    counts = threading.Thread(target=count)
    site.change({"max_num_seqs": 6})
    with under_traffic("one host") as seen:
        counts.start()
        done = site.apply()
        ended.set()
        counts.join()
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert fleet.live() != old
    assert most[0] == 2, "both engines ran at the same time"
    assert len(fleet.engines("gpu1")) == 1, "the old one has ended"
    assert seen.summary.failed == 0, seen.summary.text()
    assert seen.summary.requests >= REQUESTS
