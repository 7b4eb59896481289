"""A bad release is stopped at the first host, which returns by itself, and no client notices.

`ROLLOUT_GOOD` sets how many good rollouts follow, none of which may be stopped.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from testing import bad_releases
from testing.bad_releases import VEHICLE, BadRelease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testing.rollout_fleet import Fleet
    from testing.rollout_site import Site

GOOD = int(os.environ.get("ROLLOUT_GOOD", "3"))
BAD = {bad.name: bad for bad in bad_releases.bad_releases()}


@pytest.fixture(scope="module")
def ready(site: Site, fleet: Fleet) -> None:
    """Have every host keep the vehicle's runtime beside the one that serves."""
    site.bring(vllm=VEHICLE)
    site.bring()
    for host in fleet.values():
        host.check_output(f"ls -d /opt/vllm/releases/{VEHICLE}-*")


@pytest.fixture
def clean(fleet: Fleet) -> Iterator[None]:
    """Take the plugin off the hosts after the test."""
    yield
    for host in fleet.values():
        bad_releases.remove(host)


@pytest.mark.usefixtures("ready", "clean")
@pytest.mark.parametrize("name", BAD)
def test_it_is_stopped_at_the_first_host_and_returned(
    site: Site, fleet: Fleet, under_traffic: Callable[..., Any], name: str
) -> None:
    bad: BadRelease = BAD[name]
    site.bring()
    for host in fleet.values():
        bad.install(host)
    old = fleet.live()
    site.change(bad.instance, vllm=bad.vllm or "0.32.0", revision=bad.revision or "first", templates=bad.templates)
    with under_traffic(name, requests=0) as seen:
        done = site.apply()
        fleet.serve()
        seen.running.wait(50)
    output = done.stdout + done.stderr
    touched = seen.watch.touched()
    assert done.returncode != 0, f"{name}: it went through"
    assert bad.plugin is None or all(bad_releases.is_installed(host) for host in fleet.values()), (
        "it was bad to the end"
    )
    assert fleet.live() == old
    assert fleet.out() == set()
    assert len(touched) == int(bool(bad.caught)), f"{touched} were out of rotation"
    if bad.caught:
        (first,) = touched
        caught = bad.stopped_by(output, first)
        sys.stdout.write(f"\n[measured] {name}: stopped on {first} by {', '.join(sorted(caught))}\n")
        assert caught, output[-5000:]
    assert seen.summary.failed == 0, seen.summary.text()
    site.change()
    again = site.apply()
    assert again.returncode == 0, again.stdout[-5000:]
    assert fleet.live() == old


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("number", range(GOOD))
def test_a_good_one_is_not_stopped(site: Site, fleet: Fleet, under_traffic: Callable[..., Any], number: int) -> None:
    site.bring()
    turns: tuple[dict[str, Any], ...] = ({"instance": {"max_num_seqs": 6}}, {"revision": "nudged"}, {"vllm": VEHICLE})
    site.change(**turns[number % len(turns)])
    with under_traffic(f"good {number}", requests=0) as seen:
        done = site.apply()
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert fleet.out() == set()
    assert seen.summary.failed == 0, seen.summary.text()
