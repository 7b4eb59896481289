"""An edge for all tests of a run, and others for tests that change one."""

from __future__ import annotations

import datetime as dt
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from rackserve import pki
from testing import local_edge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., Any]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Run:
    """Return a context manager that runs an edge; options are those of `local_edge.running`."""
    needs("nginx")
    folder, numbers = tmp_path_factory.mktemp("edge"), count()
    authority = pki.make_authority("test", dt.datetime.now(dt.UTC))
    pki.save(folder, "edge", pki.issue_server(["localhost"], authority, dt.datetime.now(dt.UTC)))

    @contextmanager
    def one(**options: Any) -> Iterator[local_edge.Edge]:
        own: Path = folder / str(next(numbers))
        own.mkdir()
        with local_edge.running(own, (folder / "edge.crt", folder / "edge.key"), **options) as found:
            yield found

    return one


@pytest.fixture(scope="session")
def shared_edge(run: Run) -> Iterator[local_edge.Edge]:
    """Run an edge with the role's defaults."""
    with run() as found:
        yield found


@pytest.fixture
def nginx(shared_edge: local_edge.Edge) -> local_edge.Edge:
    """Return the edge, whose engine is well and has seen nothing."""
    shared_edge.engines.seen.clear()
    shared_edge.engines.answer = local_edge.well
    return shared_edge
