"""The pure parts of the modules that run on a host."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from rackserve.ansible.module_utils.rackserve_generations import started_at
from rackserve.ansible.module_utils.rackserve_host import switch_link, write_durably
from rackserve.ansible.modules import (
    hf_snapshot,
    host_facts,
    rackserve_packages,
    vllm_ready,
    vllm_release,
)
from rackserve.programs.verify_bundle import Digests

if TYPE_CHECKING:
    from pathlib import Path


def test_switch_link_changes_only_what_points_elsewhere(tmp_path: Path) -> None:
    link = str(tmp_path / "current")
    assert switch_link(link, "a") is True
    assert switch_link(link, "a") is False
    assert switch_link(link, "b") is True
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_write_durably_replaces_and_leaves_no_draft(tmp_path: Path) -> None:
    write_durably(str(tmp_path / "x"), b"1")
    write_durably(str(tmp_path / "x"), b"2", 0o600)
    assert (tmp_path / "x").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_lock_is_read_with_normalised_names() -> None:
    assert vllm_release.pins("# c\nFoo_Bar==1.0 \\\n    --hash=sha256:0\ntorch==2+cpu\n") == {
        "foo-bar==1.0",
        "torch==2+cpu",
    }


@pytest.mark.parametrize(
    "line", ["x[a]==1.0", "x==1.0 ; python_version > '3'", "x>=1", "x @ https://x", "-r other.txt"]
)
def test_a_line_of_a_lock_that_is_no_pin_is_named(line: str) -> None:
    with pytest.raises(vllm_release.ReleaseError, match="a line that is no pin"):
        vllm_release.pins(f"foo==1.0\n{line}\n")
    assert vllm_release.pins("--index-url https://x\n\n# x[a]==1.0\nfoo==1.0 # via x\n") == {"foo==1.0"}


def test_an_environment_that_differs_from_its_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("a==1\nb==2\n")
    vllm_release.compare_with_lock(str(tmp_path / "lock"), "b==2\na==1\n")
    with pytest.raises(vllm_release.ReleaseError, match="b==2, b==3"):
        vllm_release.compare_with_lock(str(tmp_path / "lock"), "a==1\nb==3\n")


def test_a_release_without_a_stamp_has_none(tmp_path: Path) -> None:
    assert vllm_release.stamp_of(str(tmp_path)) == ""
    (tmp_path / vllm_release.STAMP).write_text("abc\n")
    assert vllm_release.stamp_of(str(tmp_path)) == "abc"


def test_the_installer_comes_out_of_its_wheel(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "uv-1-any.whl", "w") as wheel:
        wheel.writestr("uv-1.data/scripts/uv", "#!")
    assert vllm_release.extract_uv(str(tmp_path), str(tmp_path / "out")).endswith("scripts/uv")
    with pytest.raises(vllm_release.ReleaseError, match="no uv wheel"):
        vllm_release.extract_uv(str(tmp_path / "out"), str(tmp_path))


def test_a_failed_installation_leaves_no_release_and_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "uv-1-any.whl", "w") as wheel:
        wheel.writestr("uv-1.data/scripts/uv", "#!")
    path = tmp_path / "opt/releases/x"
    path.mkdir(parents=True)
    (path / "half").touch()
    monkeypatch.setattr(vllm_release, "run", lambda *_: (1, "", "disk full"))
    with pytest.raises(vllm_release.ReleaseError, match="disk full"):
        vllm_release.make_release(str(path), {"wheels": str(tmp_path), "python": "p", "lock": "l", "lock_sha256": "s"})
    assert not path.exists()
    assert not (tmp_path / "opt/.install").exists()


def test_only_installed_packages_count() -> None:
    rows = "nginx\t1.22\tinstalled\ncurl\t7\tconfig-files\nwget\t1\thalf-installed\n"
    assert rackserve_packages.parse_installed(rows) == {"nginx": "1.22"}


def test_a_repository_index_gives_versions() -> None:
    text = "Package: a\nDepends: b (>= 1)\nVersion: 2-1\n\nPackage: c\nVersion: 3\n"
    assert rackserve_packages.parse_index(text) == {"a": "2-1", "c": "3"}


@pytest.mark.parametrize(
    ("asked", "passed"),
    [
        ("deb-systemd-invoke restart nginx.service", False),
        ("invoke-rc.d nginx upgrade", False),
        ("invoke-rc.d --quiet nginx status", False),
        ("deb-systemd-invoke try-restart nftables.service", False),
        ("deb-systemd-invoke restart prometheus-nginx-exporter.service", True),
        ("invoke-rc.d keepalived restart", True),
    ],
)
def test_a_package_does_not_touch_nginx_and_the_firewall(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    passed: bool,  # noqa: FBT001
) -> None:
    system, guards = tmp_path / "system", tmp_path / "guards"
    system.mkdir()
    for name in rackserve_packages._ASKED:
        (system / name).write_text('#!/bin/sh\necho "passed $*"\nexit 3\n')
        (system / name).chmod(0o755)
    monkeypatch.setattr(rackserve_packages, "_SYSTEM_PATH", str(system))
    path = rackserve_packages.write_guards(str(guards))
    assert path == f"{guards}:{system}"
    done = subprocess.run(asked.split(), env={"PATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, bool(done.stdout)) == ((3, True) if passed else (0, False))


def test_a_host_without_these_programs_gets_no_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rackserve_packages, "_SYSTEM_PATH", str(tmp_path / "none"))
    rackserve_packages.write_guards(str(tmp_path / "guards"))
    assert not list((tmp_path / "guards").iterdir())


@pytest.mark.needs("dpkg")
def test_of_two_versions_the_highest_counts() -> None:
    text = "Package: a\nVersion: 1.10\n\nPackage: a\nVersion: 1.9\n"
    assert rackserve_packages.parse_index(text) == {"a": "1.10"}


@pytest.mark.needs("dpkg")
@pytest.mark.parametrize(
    ("present", "carried", "older"),
    [(None, "1", True), ("1.0-1", "1.0-2", True), ("1.0-2", "1.0-2", False), ("1.0-3", "1.0-2", False)],
)
def test_a_newer_package_is_kept(present: str | None, carried: str, older: bool) -> None:  # noqa: FBT001
    assert rackserve_packages.is_older(present, carried) is older


def test_the_repository_is_read_from_apts_configuration(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("deb [trusted=yes] file:/var/lib/b/apt/debian-12 ./\n")
    (tmp_path / "conf").write_text(f'Dir::Etc::sourcelist "{tmp_path}/list";\n')
    assert rackserve_packages.repository_of(str(tmp_path / "conf")) == "/var/lib/b/apt/debian-12"


def test_a_unit_starts_when_systemd_says() -> None:
    show = "ActiveState=active\nExecMainStartTimestampMonotonic=90000000\n"
    assert started_at(show, now=1000.0, monotonic=100.0) == pytest.approx(990.0)
    assert started_at(show.replace("=active", "=inactive"), 1000.0, 100.0) is None
    assert started_at("ActiveState=active\nExecMainStartTimestampMonotonic=0\n", 1000.0, 100.0) is None
    socket = "ActiveState=active\nActiveEnterTimestampMonotonic=90000000\n"
    assert started_at(socket, now=1000.0, monotonic=100.0) == pytest.approx(990.0)


def test_a_unit_that_waits_for_its_turn_is_not_down() -> None:
    assert vllm_ready.unit_state("ActiveState=inactive\nJob=0\n") == ("inactive", True)
    assert vllm_ready.unit_state("ActiveState=inactive\nJob=42\n") == ("inactive", False)
    assert vllm_ready.unit_state("ActiveState=activating\nJob=42\n") == ("activating", False)
    assert vllm_ready.unit_state("ActiveState=failed\n") == ("failed", True)


def test_os_release_is_read_without_quotes() -> None:
    assert host_facts.os_release('ID=debian\nVERSION_ID="12"\n\n') == {"ID": "debian", "VERSION_ID": "12"}


def test_free_space_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    assert host_facts.free_bytes(str(tmp_path / "not/there/yet")) > 0


def test_only_stamped_releases_are_complete(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/.rackserve-complete").touch()
    assert host_facts.complete_releases(str(tmp_path)) == ["a"]


def test_an_altered_blob_is_found_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"hello")
    digest = hashlib.sha256(b"hello").hexdigest()
    files = [{"path": "source", "size": 5, "sha256": digest}]
    (tmp_path / "blobs").mkdir()
    assert hf_snapshot.differing(str(tmp_path), files, Digests()) == files
    hf_snapshot.place_blob(str(tmp_path / "source"), str(tmp_path / "blobs" / digest))
    assert hf_snapshot.differing(str(tmp_path), files, Digests()) == []
    (tmp_path / "blobs" / digest).chmod(0o600)
    assert hf_snapshot.differing(str(tmp_path), files, Digests()) == files
    (tmp_path / "blobs" / digest).unlink()
    (tmp_path / "blobs" / digest).write_bytes(b"hellO")
    assert hf_snapshot.differing(str(tmp_path), files, Digests()) == files


def test_two_revisions_of_one_repository_settle_on_one_main(tmp_path: Path) -> None:
    def place(revision: str, *wanted: str) -> bool:
        params = {"source": str(tmp_path), "revision": revision, "files": [], "replaced": [], "wanted": wanted}
        return hf_snapshot.write_snapshot(str(tmp_path), params)

    assert [place("a" * 40, "a" * 40, "b" * 40), place("b" * 40, "a" * 40, "b" * 40)] == [True, True]
    assert [place("a" * 40, "a" * 40, "b" * 40), place("b" * 40, "a" * 40, "b" * 40)] == [False, False]
    assert (tmp_path / "refs/main").read_text() == "a" * 40
    assert place("b" * 40, "b" * 40)
    assert (tmp_path / "refs/main").read_text() == "b" * 40


def test_an_adapters_configuration_is_read_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert host_facts.adapter_config(str(tmp_path)) == "{}"
    assert host_facts.adapter_config(str(tmp_path / "none")) is None


def test_a_user_has_an_id_or_is_not_there() -> None:
    assert host_facts.uid_of("root") == 0
    assert host_facts.uid_of("nobody-of-this-name") is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, True),
        ({"etc/systemd/logind.conf": "[Login]\n#RemoveIPC=no\n"}, True),
        ({"etc/systemd/logind.conf": "[Login]\nRemoveIPC=no\n"}, False),
        ({"etc/systemd/logind.conf.d/x.conf": "[Login]\nRemoveIPC = off \n"}, False),
        (
            {
                "etc/systemd/logind.conf": "[Login]\nRemoveIPC=no\n",
                "usr/lib/systemd/logind.conf.d/50-x.conf": "[Login]\nRemoveIPC=yes\n",
            },
            True,
        ),
        (
            {
                "usr/lib/systemd/logind.conf.d/50-x.conf": "[Login]\nRemoveIPC=yes\n",
                "etc/systemd/logind.conf.d/50-x.conf": "[Login]\nRemoveIPC=no\n",
            },
            False,
        ),
        ({"etc/systemd/logind.conf": "\ufffdnonsense"}, True),
    ],
    ids=["default", "comment", "off", "drop-in", "later drop-in", "hidden drop-in", "nonsense"],
)
def test_logind_removes_ipc_unless_it_is_told_not_to(tmp_path: Path, files: dict[str, str], *, expected: bool) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert host_facts.removes_ipc(str(tmp_path)) is False
    (tmp_path / "run/systemd/seats").mkdir(parents=True)
    assert host_facts.removes_ipc(str(tmp_path)) is expected
