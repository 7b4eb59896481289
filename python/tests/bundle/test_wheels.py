"""Reading a lock, and filling a wheelhouse from one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rackserve.bundle._locks import hashes, pins, without
from rackserve.bundle._progress import Progress
from rackserve.bundle._recipe import RuntimeRecipe
from rackserve.bundle._shim import pyairports_stub, vllm_shim
from rackserve.bundle._wheels import build_wheelhouse, download, target_platforms
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
    names = target_platforms("x86_64")
    assert names[0] == "manylinux_2_36_x86_64"
    assert names.index("manylinux_2_17_x86_64") + 1 == names.index("manylinux2014_x86_64")
    assert names[-1] == "linux_x86_64"


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
