"""Reading a lock, and filling a wheelhouse from one."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import get_args

import pytest

from rackserve.bundle._locks import hashes, pins, without
from rackserve.bundle._manifest import sha256_of
from rackserve.bundle._progress import Progress
from rackserve.bundle._recipe import Recipe, RuntimeRecipe, TargetRecipe
from rackserve.bundle._shim import pyairports_stub, vllm_shim
from rackserve.bundle._wheels import GLIBC, build_wheelhouse, download, target_platforms
from rackserve.errors import BundleError, InputError

A, B, C = (digit * 64 for digit in "abc")
OUTLINES = f"outlines==0.0.46 \\\n    --hash=sha256:{A} \\\n    --hash=sha256:{B}\n"
STUB = f"pyairports=={pyairports_stub().version} \\\n    --hash=sha256:{pyairports_stub().sha256}\n"
UV = f"uv==0.13.9 \\\n    --hash=sha256:{C}\n"
CLASSIC = RuntimeRecipe(vllm="0.6.4.post1", flavour="cuda", python="3.11")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for pip; it keeps each call's arguments, the requirements' text last."""
    calls: list[list[str]] = []

    def fake(argv: list[object], **_: object) -> str:
        words = [str(word) for word in argv]
        calls.append([*words, Path(words[words.index("--requirement") + 1]).read_text()])
        return ""

    monkeypatch.setattr("rackserve.bundle._wheels.run", fake)
    return calls


def house(tmp_path: Path, recipe: RuntimeRecipe, text: str) -> set[str]:
    lock, into, scratch = tmp_path / f"{recipe.lock_name}.txt", tmp_path / "wheels", tmp_path / "scratch"
    lock.write_text(text)
    scratch.mkdir()
    build_wheelhouse(recipe, lock, into, scratch, Progress())
    return {path.name for path in into.iterdir()}


def test_a_lock_is_read_pin_by_pin() -> None:
    assert pins(OUTLINES + STUB) == {"outlines": "0.0.46", "pyairports": "2.1.1+rackserve"}
    assert hashes(OUTLINES + UV + "bare==1\n") == {"outlines": {A, B}, "uv": {C}, "bare": set()}


def test_a_pin_is_left_out_with_all_its_hashes() -> None:
    assert without(f"# head\n{OUTLINES}{STUB}{UV}", {"outlines"}) == f"# head\n{STUB}{UV}"
    assert without(OUTLINES, {"out"}) == OUTLINES


def test_newer_wheels_come_before_older_ones_of_the_same_meaning() -> None:
    names = target_platforms("x86_64", "12")
    assert names[0] == "manylinux_2_36_x86_64"
    assert names.index("manylinux_2_17_x86_64") + 1 == names.index("manylinux2014_x86_64")
    assert names[-1] == "linux_x86_64"


def test_each_debian_release_has_its_own_glibc() -> None:
    assert target_platforms("x86_64", "13")[0] == "manylinux_2_41_x86_64"
    assert set(target_platforms("x86_64", "12")) < set(target_platforms("x86_64", "13"))
    assert set(GLIBC) == set(get_args(TargetRecipe.model_fields["release"].annotation))


def test_a_runtime_is_held_to_the_oldest_debian_that_it_is_for() -> None:
    one, both = ({"vllm": "0.32.0", "flavour": "cpu", "python": python} for python in ("3.13", "3.11"))
    targets = [
        {"distribution": "debian", "release": "13", "runtimes": [one, both]},
        {"distribution": "debian", "release": "12", "runtimes": [both]},
    ]
    recipe = Recipe.model_validate({"name": "a", "version": 1, "targets": targets, "models": []})
    assert [recipe.oldest_debian(runtime) for runtime in recipe.runtimes] == ["13", "12"]
    assert recipe.oldest_debian() == "12"


def test_a_newer_target_gets_its_wheels(tmp_path: Path, pip: list[list[str]]) -> None:
    (tmp_path / "lock.txt").write_text(UV)
    download(tmp_path / "lock.txt", tmp_path / "wheels", "3.13", tmp_path, Progress(), machine="x86_64", release="13")
    assert "--platform=manylinux_2_39_x86_64" in pip[0]
    download(tmp_path / "lock.txt", tmp_path / "wheels", "3.11", tmp_path, Progress(), machine="x86_64")
    assert "--platform=manylinux_2_39_x86_64" not in pip[1]


def empty_wheel(index: Path, name: str) -> str:
    """Write a wheel to a local index; return its sha256."""
    package, version = name.split("-")[:2]
    index.mkdir(exist_ok=True)
    with zipfile.ZipFile(index / name, "w") as wheel:
        info = f"{package}-{version}.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {name}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return sha256_of(index / name)


NO_WHEEL = {
    "newer glibc": (
        ["foo_bar-1-cp311-cp311-manylinux_2_39_x86_64.whl"],
        "has cp311-cp311-manylinux_2_39_x86_64 (needs glibc 2.39); pin a version that has one, or use a target",
    ),
    "source only": (["foo_bar-1.tar.gz"], "the index has a source archive, which is never built; pin"),
    "other Python and source": (
        ["foo_bar-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "foo_bar-1.tar.gz"],
        "has cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64, a source archive, which is never built; pin",
    ),
    "musl": (["foo_bar-1-cp311-cp311-musllinux_1_2_x86_64.whl"], "the index has cp311-cp311-musllinux_1_2_x86_64; pin"),
    "arm": (["foo_bar-1-cp311-cp311-manylinux_2_39_aarch64.whl"], "has cp311-cp311-manylinux_2_39_aarch64 (needs"),
    "other version": (["foo_bar-1.5-py3-none-any.whl"], "the index has no file of this version; pin"),
}


@pytest.mark.parametrize(("files", "said"), NO_WHEEL.values(), ids=NO_WHEEL)
def test_a_wheel_that_the_index_lacks_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], said: str
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    digest = ""
    for name in files:
        digest = empty_wheel(tmp_path / "index", name)
    (tmp_path / "lock.txt").write_text(f"foo-bar==1 \\\n    --hash=sha256:{digest}\n")
    with pytest.raises(BundleError) as refused:
        download(tmp_path / "lock.txt", tmp_path / "wheels", "3.11", tmp_path, Progress(), machine="x86_64")
    start = "cannot download the wheels of lock.txt: foo-bar 1 has no wheel for Python 3.11 on x86_64, Debian 12, with "
    assert str(refused.value).startswith(f"{start}glibc 2.36; the index ha")
    assert said in str(refused.value)


def test_a_wheel_for_a_newer_glibc_is_had_for_a_newer_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    digest = empty_wheel(tmp_path / "index", "foo-1-cp313-cp313-manylinux_2_39_x86_64.whl")
    (tmp_path / "lock.txt").write_text(f"foo==1 \\\n    --hash=sha256:{digest}\n")
    download(tmp_path / "lock.txt", tmp_path / "wheels", "3.13", tmp_path, Progress(), machine="x86_64", release="13")
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == ["foo-1-cp313-cp313-manylinux_2_39_x86_64.whl"]


def test_another_failure_of_pip_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    empty_wheel(tmp_path / "index", "foo-1-py3-none-any.whl")
    (tmp_path / "lock.txt").write_text(f"foo==1 \\\n    --hash=sha256:{A}\n")
    with pytest.raises(BundleError, match=r"(?s)ended with 1.*DO NOT MATCH"):
        download(tmp_path / "lock.txt", tmp_path / "wheels", "3.11", tmp_path, Progress(), machine="x86_64")


def test_a_cached_wheel_for_a_newer_target_does_not_stay(tmp_path: Path, pip: list[list[str]]) -> None:
    name = "outlines-0.0.46-cp311-cp311-manylinux_2_39_x86_64.whl"
    digest = empty_wheel(tmp_path / "wheels", name)
    assert house(tmp_path, CLASSIC, OUTLINES.replace(A, digest) + STUB) == {pyairports_stub().file_name}
    assert len(pip) == 1


def test_what_no_index_has_is_made_and_not_downloaded(tmp_path: Path, pip: list[list[str]]) -> None:
    assert house(tmp_path, CLASSIC, OUTLINES + STUB + UV) == {pyairports_stub().file_name}
    (call,) = pip
    assert call[-1] == OUTLINES + UV
    assert "--platform=manylinux_2_28_x86_64" in call


def test_the_cpu_build_gets_its_shim(tmp_path: Path, pip: list[list[str]]) -> None:
    shim = vllm_shim("0.32.0")
    recipe = RuntimeRecipe(vllm="0.32.0", flavour="cpu", python="3.11")
    text = f"{UV}vllm=={shim.version} \\\n    --hash=sha256:{shim.sha256}\n"
    assert house(tmp_path, recipe, text) == {shim.file_name}
    assert pip[0][-1] == UV


def test_cuda_has_no_shim_and_downloads_vllm(tmp_path: Path, pip: list[list[str]]) -> None:
    recipe = RuntimeRecipe(vllm="0.33.0", flavour="cuda", python="3.11")
    text = f"{UV}vllm==0.33.0 \\\n    --hash=sha256:{A}\n"
    assert house(tmp_path, recipe, text) == set()
    assert pip[0][-1] == text


def test_a_lock_that_pins_another_stub_is_refused_before_any_download(tmp_path: Path, pip: list[list[str]]) -> None:
    with pytest.raises(BundleError, match=r"refresh_locks\.sh vllm 0\.6\.4\.post1 cuda"):
        house(tmp_path, CLASSIC, STUB.replace(pyairports_stub().sha256, A))
    assert pip == []


def test_pip_gets_the_pins_of_the_target_and_no_markers(tmp_path: Path, pip: list[list[str]]) -> None:
    recipe = RuntimeRecipe(vllm="0.33.0", flavour="cuda", python="3.11")
    other = f"Old_Name==1 ; python_version < '3.11' --hash=sha256:{A}\n"
    here = f"New_Name[x]==1 ; sys_platform == 'linux' --hash=sha256:{B}\n"
    assert house(tmp_path, recipe, other + here + UV) == set()
    assert pip[0][-1] == f"new-name==1 \\\n    --hash=sha256:{B}\n{UV}"


def test_a_lock_for_every_python_has_no_markers(tmp_path: Path, pip: list[list[str]]) -> None:
    (tmp_path / "l.txt").write_text(f"x==1 ; python_version < '3.12' --hash=sha256:{A}\n")
    with pytest.raises(InputError, match=r"l\.txt has markers \(x\)"):
        download(tmp_path / "l.txt", tmp_path / "into", "3.11", tmp_path, Progress())
    assert pip == []


@pytest.mark.usefixtures("pip")
def test_a_wheel_of_an_older_lock_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "outlines-0.0.45-py3-none-any.whl").write_bytes(b"old")
    assert house(tmp_path, CLASSIC, OUTLINES + STUB) == {pyairports_stub().file_name}
