"""The fleet, its inventory, and traffic while it is changed."""

from __future__ import annotations

import pytest

from testing.rollout_fixtures import fleet, under_traffic
from testing.rollout_site import Site

__all__ = ["fleet", "under_traffic"]
# Seconds: what is changed here is good, and rollout_faults has the default.
SOAK = 20


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Return the inventory of two hosts, each with one instance of the chat model."""
    return Site(tmp_path_factory.mktemp("site") / "inventory", stack_rollout_soak=SOAK)
