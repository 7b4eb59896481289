"""A full disk stops an import and loses nothing; with room, the next one ends as an undisturbed one does."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from rackserve.bundle import import_bundle, split
from rackserve.errors import BundleError
from testing import bundles as making

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rackserve.bundle import Trust

WHEEL_MB = 20


@pytest.fixture
def disk(state: Path) -> Iterator[Path]:
    """Mount a small disk of its own where rackserve keeps its bundles."""
    state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "bundles", state], check=True)
    yield state
    subprocess.run(["umount", state], check=True)


def resize(disk: Path, kib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kib}k", disk], check=True)


@pytest.fixture(params=["whole", "whole, unforeseen", "parts"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give what is imported; where it is unforeseen, the disk fills in the middle and not by a look before."""
    if "unforeseen" in request.param:
        monkeypatch.setattr("rackserve.bundle._store.Store._refuse_full_disk", lambda *_: None)
    return str(request.param).partition(",")[0]


@pytest.mark.lab
@pytest.mark.parametrize("tenth", range(10))
def test_an_import_that_fills_the_disk_keeps_the_bundle_in_use(
    disk: Path, keys: dict[str, Path], trust: Trust, form: str, tenth: int
) -> None:
    folder = disk.parent.parent
    making.write_transport(folder / "old", keys["lab"])
    resize(disk, 4096)
    home, _ = import_bundle(folder / "old", trust)
    making.write_transport(folder / "whole", keys["lab"], version=2, wheel=os.urandom(WHEEL_MB << 20))
    split(folder / "whole", 4 << 20, folder / "parts")
    used = int(subprocess.check_output(["du", "-sk", disk], text=True).split()[0])
    resize(disk, used + (WHEEL_MB << 10) * tenth // 10)
    with pytest.raises(BundleError, match=r"No space left on device|GB free and it needs"):
        import_bundle(folder / form, trust)
    assert (disk / "bundles/current").resolve() == home
    assert making.problems(home, trust) == ""
    resize(disk, (WHEEL_MB * 3) << 10)
    home, _ = import_bundle(folder / form, trust)
    assert making.problems(home, trust) == ""
    assert [path.name for path in home.parent.glob(".*-*")] == []
