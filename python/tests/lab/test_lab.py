from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from rackserve import lab
from rackserve.errors import LabError
from rackserve.lab import _host, _inotify, _lab
from rackserve.lab._spec import make_spec
from rackserve.lab._state import lab_dir, merge, save

if TYPE_CHECKING:
    from collections.abc import Callable
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


@pytest.fixture
def inotify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that has one process with so many inotify instances, where 128 may be."""

    def use(number: int) -> None:
        limit = tmp_path / "proc/sys/fs/inotify/max_user_instances"
        limit.parent.mkdir(parents=True)
        limit.write_text("128\n")
        descriptors = tmp_path / "proc/7/fd"
        descriptors.mkdir(parents=True)
        (descriptors / "0").symlink_to("/dev/null")
        for i in range(1, number + 1):
            (descriptors / str(i)).symlink_to("anon_inode:inotify")

    monkeypatch.setattr(_inotify, "_PROC", tmp_path / "proc")
    return use


@pytest.mark.parametrize(("used", "hosts"), [(0, 0), (0, 4), (84, 3), (92, 3), (128, 0)])
def test_hosts_for_which_there_is_room(inotify: Callable[[int], None], used: int, hosts: int) -> None:
    inotify(used)
    _inotify.check_room(hosts)


def test_no_host_boots_where_inotify_instances_are_too_few(
    inotify: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    inotify(93)
    monkeypatch.setattr(_lab, "_check_machine", lambda: None)
    monkeypatch.setattr(_host, "is_up", lambda _host: False)
    monkeypatch.setattr(_lab, "base_tree", lambda *_: pytest.fail("it went on"))
    said = r"instances is 128; to boot 3 lab hosts it must be 129 \(93 in use, 12 a host\): sysctl -w .*_instances=129$"
    with pytest.raises(LabError, match=said):
        lab.up(make_spec("demo", None, {}))


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
