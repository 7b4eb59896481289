from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from rackserve import lab
from rackserve.errors import LabError
from rackserve.lab._spec import make_spec
from rackserve.lab._state import lab_dir, merge, save

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_without_root_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs root; this is uid 1000: run it with sudo"):
        lab.up(make_spec("demo", None, {}))
    assert not lab_dir("demo").exists()


def test_missing_tools_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool in ("nft", "mmdebstrap") else f"/usr/bin/{tool}")
    with pytest.raises(LabError, match=r"needs mmdebstrap, nft; .*apt-get install mmdebstrap nftables"):
        lab.up(make_spec("demo", None, {}))
    assert not lab_dir("demo").exists()


def test_what_a_lab_was_put_up_with_is_remembered() -> None:
    lab_dir("mine").mkdir(parents=True)
    save(merge(None, make_spec("mine", "10.89.9", {"edge1": 13})))
    assert lab.lab_spec("mine") == make_spec("mine", "10.89.9", {"edge1": 13})
    assert lab.lab_spec("mine", releases={"gpu1": 13}) == make_spec("mine", "10.89.9", {"edge1": 13, "gpu1": 13})


def test_no_lab_has_no_hosts_and_nothing_to_remove() -> None:
    assert lab.status("demo").hosts == ()
    assert not lab.down("demo")


def test_a_command_for_a_lab_that_is_not_there_says_how_to_make_it() -> None:
    with pytest.raises(LabError, match="there is no lab demo; run rackserve lab up --name demo"):
        lab.ssh_argv("demo", "gpu1")
