"""What a snapshot keeps, who may take it away, and what a clone does not share with the host it was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackserve.errors import InputError, LabError
from rackserve.lab import _host, _lab, _snapshot
from rackserve.lab._snapshot import keep, load_snapshot, load_snapshots, remove, snapshots_dir
from rackserve.lab._spec import make_spec
from rackserve.lab._state import HostRecord, LabRecord, merge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabRecord:
    """Return a lab whose hosts have roots on disk, mounted nowhere, and no processes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(_host, "power_off", lambda _host: None)
    monkeypatch.setattr(_host, "halt", lambda _host: None)
    lab = merge(None, make_spec("demo", None, {"edge1": 13}))
    for host in lab.hosts:
        made_on(host, [tmp_path / "tree"])
    return lab


def made_on(host: HostRecord, layers: Sequence[Path]) -> None:
    (host.folder / "upper").mkdir(parents=True, exist_ok=True)
    (host.folder / "upper/written").write_text(host.name)
    (host.folder / "prepared").write_text("".join(f"{layer}\n" for layer in layers))


def test_a_snapshot_is_what_a_host_wrote_and_what_it_lay_on(record: LabRecord, tmp_path: Path) -> None:
    gpu1 = record.host("gpu1")
    kept = keep(gpu1, "release")
    layer = snapshots_dir() / "release/layer"
    assert kept == load_snapshot("release") == _snapshot.Snapshot("release", 12, (layer, tmp_path / "tree"))
    assert (layer / "written").read_text() == "gpu1"
    assert not _host.is_prepared(gpu1), "its root is made anew"


def test_a_snapshot_of_a_clone_lies_on_the_first(record: LabRecord, tmp_path: Path) -> None:
    first = keep(record.host("gpu1"), "release")
    made_on(record.host("gpu2"), first.layers)
    second = keep(record.host("gpu2"), "models")
    assert second.layers == (snapshots_dir() / "models/layer", *first.layers)
    assert first.layers[-1] == tmp_path / "tree"


def test_a_name_is_taken_once_and_is_a_name(record: LabRecord) -> None:
    keep(record.host("gpu1"), "release")
    with pytest.raises(LabError, match=r"snapshot release exists; .* rackserve lab snapshots --remove release"):
        keep(record.host("gpu2"), "release")
    assert _host.is_prepared(record.host("gpu2")), "it was left alone"
    with pytest.raises(InputError, match="use lower-case letters"):
        keep(record.host("gpu2"), "../elsewhere")


def test_a_host_without_a_root_cannot_be_kept(record: LabRecord) -> None:
    (record.host("gpu1").folder / "prepared").unlink()
    with pytest.raises(LabError, match="demo-gpu1 has no root to keep; run rackserve lab up --name demo"):
        keep(record.host("gpu1"), "release")


def test_an_unknown_snapshot_is_refused_with_those_that_there_are(record: LabRecord) -> None:
    with pytest.raises(LabError, match=r"no snapshot 'other' \(there are: none\)"):
        load_snapshot("other")
    keep(record.host("gpu1"), "release")
    with pytest.raises(LabError, match=r"no snapshot 'other' \(there are: release\)"):
        remove("other")


def test_a_snapshot_goes_when_nothing_lies_on_it(record: LabRecord) -> None:
    first = keep(record.host("gpu1"), "release")
    made_on(record.host("gpu1"), first.layers)
    made_on(record.host("gpu2"), first.layers)
    keep(record.host("gpu2"), "models")
    with pytest.raises(LabError, match="release is in use by host gpu1 of lab demo, snapshot models; reset or remove"):
        remove("release")
    _host.discard(record.host("gpu1"))
    remove("models")
    remove("release")
    assert load_snapshots() == []
    assert list(snapshots_dir().glob("*")) == []


def test_a_clone_needs_a_snapshot_of_its_own_release(record: LabRecord) -> None:
    kept = keep(record.host("gpu1"), "release")
    assert _lab._layers(record.host("gpu2"), "release", print) == kept.layers
    with pytest.raises(LabError, match="release is of Debian 12, edge1 of lab demo is Debian 13; take a snapshot"):
        _lab._layers(record.host("edge1"), "release", print)


def test_a_layer_that_is_gone_is_named(record: LabRecord, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"the layer .*tree of demo-gpu1 is gone; run rackserve lab reset gpu1"):
        _host.mount_root(record.host("gpu1"), [tmp_path / "tree"])
