from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rackserve.errors import LabError
from rackserve.lab import _tree
from rackserve.lab._tree import PACKAGES, base_tree, recipe_digest, tree_path

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_tree, "machine_options", list)
    monkeypatch.setattr(_tree, "machine_sources", list)


def test_the_digest_follows_the_recipe_and_not_the_order_of_packages() -> None:
    assert recipe_digest(12) == recipe_digest(12, tuple(reversed(PACKAGES)))
    assert recipe_digest(12) != recipe_digest(13)
    assert recipe_digest(12) != recipe_digest(12, (*PACKAGES, "curl"))
    assert recipe_digest(12, machine="x86_64") != recipe_digest(12, machine="aarch64")


def test_a_tree_that_is_there_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_args: object, **_kwargs: object) -> str:
        pytest.fail("the tree was made again")

    monkeypatch.setattr(_tree, "run", run)
    tree_path(12).mkdir(parents=True)
    assert base_tree(12, lambda _: None) == tree_path(12)


def test_an_interrupted_tree_is_never_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    building = tree_path(12).with_name(f".building-{tree_path(12).name}-{os.getpid()}")

    def fail(*_args: object, **_kwargs: object) -> str:
        building.mkdir()
        (building / "half").touch()
        raise LabError("no network")

    monkeypatch.setattr(_tree, "run", fail)
    with pytest.raises(LabError, match="no network"):
        base_tree(12, lambda _: None)
    assert not tree_path(12).exists()

    def succeed(*_args: object, **_kwargs: object) -> str:
        building.mkdir()  # fails if the half-made one were still there
        return ""

    monkeypatch.setattr(_tree, "run", succeed)
    assert base_tree(12, lambda _: None).is_dir()
    assert not building.exists()
