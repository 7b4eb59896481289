"""What a bare machine refuses, keeps and throws away when it is made a controller."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rackserve.programs import bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


UNSAFE = {
    "absolute": [member("/etc/passwd")],
    "traversal": [member("a/../../etc/passwd")],
    "absolute link": [member("a", tarfile.SYMTYPE, "/etc")],
    "link out": [member("a/b", tarfile.SYMTYPE, "../../etc")],
    "hard link": [member("a", tarfile.LNKTYPE, "b")],
    "device": [member("a", tarfile.CHRTYPE)],
    "pipe": [member("a", tarfile.FIFOTYPE)],
    "below a link": [member("a", tarfile.SYMTYPE, "b"), member("a/c")],
    "twice": [member("a", tarfile.SYMTYPE, "b"), member("a")],
}


@pytest.mark.parametrize("members", UNSAFE.values(), ids=UNSAFE)
def test_an_unsafe_member_is_named(members: list[tarfile.TarInfo]) -> None:
    assert bootstrap.unsafe(members) == [members[-1].name]


def test_nothing_of_an_unsafe_project_is_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "project.tar", "w") as tar:
        tar.addfile(member("good"))
        tar.addfile(member("../evil"))
    with pytest.raises(bootstrap.CannotBootstrapError, match=r"'\.\./evil'"):
        bootstrap.unpack_project(tmp_path / "project.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


WHEELS = ["yaml-6-cp311-cp311-manylinux_2_17_x86_64.whl", "crypto-1-cp311-abi3-manylinux_2_34_x86_64.whl", "a-py3.whl"]


@pytest.mark.parametrize(("version", "reason"), [((3, 9), "3.11 or newer"), ((3, 13), "for Python 3.11")])
def test_a_python_without_wheels_is_refused(version: tuple[int, int], reason: str) -> None:
    with pytest.raises(bootstrap.CannotBootstrapError, match=reason):
        bootstrap.check_python(version, WHEELS)


def test_debian_12s_python_is_accepted() -> None:
    bootstrap.check_python((3, 11), WHEELS)


def test_room_is_counted_in_blocks() -> None:
    assert bootstrap.room_needed([0, 1, 4096, 4097]) == bootstrap.SPARE_BYTES + 4 * 4096


def test_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(bootstrap.CannotBootstrapError, match=r"no readable manifest\.json"):
        bootstrap.check_files(tmp_path)


def test_uv_comes_out_of_its_wheel_only_by_its_hash(tmp_path: Path) -> None:
    wheel = tmp_path / "uv-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("uv-1.data/scripts/uv", b"program")
    lock = f"uv==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    program = bootstrap.unpack_uv([wheel], lock, tmp_path)
    assert program.read_bytes() == b"program"
    assert program.stat().st_mode & 0o111
    with pytest.raises(bootstrap.CannotBootstrapError, match="by no hash"):
        bootstrap.unpack_uv([wheel], "uv==1 --hash=sha256:0", tmp_path)


def make_release(releases: Path, name: str, *, complete: bool) -> Path:
    (releases / name).mkdir(parents=True)
    if complete:
        (releases / name / bootstrap.COMPLETE).touch()
    return releases / name


def test_what_is_not_whole_is_removed_and_the_rest_stays(tmp_path: Path) -> None:
    whole = make_release(tmp_path, "a", complete=True)
    half = make_release(tmp_path, "b", complete=False)
    bootstrap.remove_halves(tmp_path)
    assert (whole.exists(), half.exists()) == (True, False)


def test_the_switch_leaves_the_release_before(tmp_path: Path) -> None:
    dest = tmp_path / "rackserve"
    for name in ("a", "b"):
        bootstrap.check_dest(dest)
        bootstrap.switch(dest, make_release(tmp_path / "rackserve-releases", name, complete=True))
        assert dest.resolve().name == name
    assert (tmp_path / "rackserve-releases/a").is_dir()


@pytest.mark.parametrize("occupy", [lambda p: p.mkdir(), lambda p: p.symlink_to("/etc")], ids=["folder", "link"])
def test_a_destination_that_is_not_ours_is_left_alone(tmp_path: Path, occupy: Callable[[Path], object]) -> None:
    occupy(tmp_path / "rackserve")
    with pytest.raises(bootstrap.CannotBootstrapError, match="not a link to a release"):
        bootstrap.check_dest(tmp_path / "rackserve")


def test_a_failed_program_shows_its_last_words(tmp_path: Path) -> None:
    with (
        bootstrap.locked(tmp_path / "releases") as lock,
        pytest.raises(bootstrap.CannotBootstrapError, match=r"ended with 3:\nno luck"),
    ):
        bootstrap.run(["sh", "-c", "echo no luck >&2; exit 3"], lock)


def run_script(bundle: Path, *words: str, **fakes: str) -> subprocess.CompletedProcess[str]:
    """Run bootstrap.sh from a bundle, with programs of the machine replaced by shell lines."""
    (bundle / "controller").mkdir()
    shutil.copy(Path(bootstrap.__file__).with_suffix(".sh"), bundle / "controller")
    (bundle / "controller/packages").write_text("openssh-client\npython3\n")
    (bundle / "bin").mkdir()
    for name, line in fakes.items():
        program = bundle / "bin" / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    env = {"PATH": f"{bundle / 'bin'}:{os.defpath}"}
    script = str(bundle / "controller/bootstrap.sh")
    return subprocess.run(["sh", script, *words], env=env, capture_output=True, text=True, check=False)


def test_a_machine_that_has_the_packages_needs_no_root(tmp_path: Path) -> None:
    done = run_script(tmp_path, "--packages", dpkg_query="echo installed", id="echo 1000")
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_packages_that_the_bundle_lacks_are_named(tmp_path: Path) -> None:
    done = run_script(tmp_path, dpkg_query="exit 1")
    assert done.returncode == 2
    assert "lacks openssh-client python3, and the bundle has no apt/" in done.stderr


def test_without_root_the_one_command_is_printed(tmp_path: Path) -> None:
    release = subprocess.run(
        ["sh", "-c", '. /etc/os-release && printf "%s-%s" "$ID" "${VERSION_ID:-unknown}"'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "apt" / release).mkdir(parents=True)
    (tmp_path / "apt" / release / "InRelease").touch()
    done = run_script(tmp_path, dpkg_query='[ "$4" = python3 ] && echo installed', id="echo 1000")
    assert done.returncode == 2
    assert f"lacks openssh-client; run: sudo sh '{tmp_path}/controller/bootstrap.sh' --packages" in done.stderr


def test_help_changes_nothing(tmp_path: Path) -> None:
    done = run_script(tmp_path, "--help", dpkg_query="exit 1")
    assert done.returncode == 0
    assert done.stdout.startswith("Makes this machine a controller")
