"""Signed bundles for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testing import bundles as making

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rackserve.bundle import Trust


@pytest.fixture(scope="session")
def keys(needs: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    needs("ssh-keygen")
    folder = tmp_path_factory.mktemp("keys")
    return {name: making.make_key(folder, name) for name in ("lab", "untrusted")}


@pytest.fixture
def trust(keys: dict[str, Path]) -> Trust:
    return making.trust_in(keys["lab"])


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give rackserve a state folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/rackserve"


@pytest.fixture
def good_bundle(tmp_path: Path, keys: dict[str, Path]) -> Path:
    """Give a bundle as it travels."""
    making.write_transport(tmp_path / "bundle", keys["lab"])
    return tmp_path / "bundle"
