from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackserve.errors import LabError
from rackserve.lab._spec import make_spec
from rackserve.lab._state import RunRecord, lab_dir, load, load_run, locked, merge, save, save_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_lab_is_read_as_it_was_written() -> None:
    record = merge(None, make_spec("demo", None, {"edge1": 13}))
    lab_dir("demo").mkdir(parents=True)
    save(record)
    assert load("demo") == record
    assert [path.name for path in lab_dir("demo").iterdir()] == ["lab.json"]


def test_no_lab_is_none() -> None:
    assert load("demo") is None


def test_a_damaged_record_is_named() -> None:
    lab_dir("demo").mkdir(parents=True)
    (lab_dir("demo") / "lab.json").write_text("{")
    with pytest.raises(LabError, match=r"lab\.json is not JSON"):
        load("demo")


def test_hosts_keep_their_identity_and_have_one_each() -> None:
    first = merge(None, make_spec("demo", None, {}))
    again = merge(first, make_spec("demo", None, {}))
    assert again == first
    assert len({host.uuid for host in first.hosts}) == 3


def test_a_lab_cannot_move_to_another_network() -> None:
    first = merge(None, make_spec("demo", None, {}))
    with pytest.raises(LabError, match=r"exists on 10\.89\.0\.0/24"):
        merge(first, make_spec("demo", "10.89.9", {}))


def test_a_host_that_was_made_cannot_change_its_release() -> None:
    first = merge(None, make_spec("demo", None, {}))
    first.host("edge1").folder.mkdir(parents=True)
    with pytest.raises(LabError, match="exists as Debian 12, asked for is 13"):
        merge(first, make_spec("demo", None, {"edge1": 13}))


def test_interface_names_fit_the_kernel_and_differ_between_labs() -> None:
    one, other = merge(None, make_spec("demo", None, {})), merge(None, make_spec("longest-lab", "10.89.9", {}))
    names = [record.veth for lab in (one, other) for record in lab.hosts] + [one.bridge, other.bridge]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 15


def test_an_unknown_host_is_refused_by_name() -> None:
    with pytest.raises(LabError, match="it has gpu1, gpu2, edge1"):
        merge(None, make_spec("demo", None, {})).host("gpu9")


def test_a_run_is_read_as_it_was_written() -> None:
    host = merge(None, make_spec("demo", None, {})).hosts[0]
    assert load_run(host) is None
    host.folder.mkdir(parents=True)
    save_run(host, RunRecord(2, boot_s=1.5))
    assert load_run(host) == RunRecord(2, boot_s=1.5)


def test_the_lock_makes_the_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
        (tmp_path / "new" / "file").touch()
    assert (tmp_path / "new").is_dir()


def test_the_lock_leaves_no_empty_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
