"""Fixtures of the scenarios `rollout` and `rollout_faults`: the fleet, its inventory, traffic while it is changed."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testinfra import get_host

from testing.lab import STATE
from testing.rollout_fleet import Fleet, Watch, watching
from testing.rollout_site import Site
from testing.rollout_traffic import REQUESTS, Traffic, traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testing.traffic import Summary

# Files for python/tools/rollout_picture.py.
RESULTS = Path(os.environ.get("ROLLOUT_RESULTS") or STATE / "rollout-lab/results")


class Seen:
    """What clients and the edge's rotation saw during a change; both are complete at its end."""

    def __init__(self, running: Traffic, watch: Watch) -> None:
        self.running, self.watch = running, watch
        self._summary: Summary | None = None

    def end(self, requests: int) -> None:
        """Let the clients ask until so many have ended in all."""
        self.running.enough(requests)
        self._summary = self.running.end()

    @property
    def summary(self) -> Summary:
        """What came of the requests."""
        assert self._summary, "the traffic has ended"
        return self._summary


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> Fleet:
    """Return the hosts."""
    config = request.config.getoption("--ssh-config")
    gpu1, gpu2, edge = (get_host(f"ssh://{name}", ssh_config=config) for name in ("gpu1", "gpu2", "edge1"))
    return Fleet({"gpu1": gpu1, "gpu2": gpu2}, edge)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Return the inventory of two hosts, each with one instance of the chat model."""
    return Site(tmp_path_factory.mktemp("site") / "inventory")


@pytest.fixture
def under_traffic() -> Callable[..., Any]:
    """Return a context manager in which clients ask: name, options of `traffic`, and how many requests at least."""

    @contextmanager
    def run(name: str, *, most_tokens: int = 256, requests: int = REQUESTS) -> Iterator[Seen]:
        RESULTS.mkdir(parents=True, exist_ok=True)
        with traffic(RESULTS, name, most_tokens=most_tokens) as running, watching() as watch:
            seen = Seen(running, watch)
            yield seen
            seen.end(requests)
        watch.save(running.path.with_suffix(".events.jsonl"))
        sys.stdout.write(f"\n[measured] {name}: {seen.summary.text()}\n")

    return run
