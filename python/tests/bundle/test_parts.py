"""The pure pieces that a bundle is built with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackserve._paths import project_root
from rackserve.bundle._models import build_model, derived_revision
from rackserve.bundle._recipe import ModelRecipe, RandomSource, RuntimeRecipe, debian_packages, read_recipe
from rackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_lock_is_named_after_what_it_is_for() -> None:
    assert RuntimeRecipe(vllm="0.32.0", flavour="cpu", python="3.11").lock_name == "vllm-0.32.0-cpu-py311"
    assert RuntimeRecipe(vllm="0.33.0", flavour="cuda", python="3.11").lock_name == "vllm-0.33.0-cuda-py311"


def test_the_labs_models_are_pinned_to_what_their_sources_give() -> None:
    for model in read_recipe(project_root() / "inventory").models:
        assert model.revision == derived_revision(model.source)


def test_a_wrong_revision_is_refused_with_the_right_one(tmp_path: Path) -> None:
    source = RandomSource(kind="random_llama", seed=1)
    recipe = ModelRecipe(repo="a/b", revision="f" * 40, source=source)
    with pytest.raises(InputError, match=derived_revision(source)):
        build_model(recipe, tmp_path / "out", tmp_path)


def test_another_seed_is_another_revision() -> None:
    seeds = (RandomSource(kind="random_llama", seed=seed) for seed in range(3))
    assert len({derived_revision(source) for source in seeds}) == 3


NAMED = "name: lab\nversion: 1\n"
TARGET = "{distribution: debian, release: '12'}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{NAMED}targets: [{{distribution: debian, release: '11'}}]\nmodels: []\n", "targets.0.release"),
        (f"{NAMED}targets: []\nmodels: []\n", "targets: Tuple should have at least 1 item"),
        (f"{NAMED}targets: [{TARGET}, {TARGET}]\nmodels: []\n", "Debian 12 stands there twice"),
        (f"{NAMED}targets: [{TARGET}]\nmodels: []\nmodel: []\n", "model: Extra inputs"),
        (
            f"{NAMED}targets: [{TARGET}]\nmodels: [{{repo: a/b, revision: main, source: {{kind: random_llama}}}}]\n",
            "main",
        ),
        (f"name: A\nversion: 1\ntargets: [{TARGET}]\nmodels: []\n", "name: String should match"),
        (f"name: a\nversion: 0\ntargets: [{TARGET}]\nmodels: []\n", "version: Input should be greater"),
        ("targets: [", "not YAML"),
    ],
    ids=["release", "no target", "one twice", "unknown key", "branch for a revision", "name", "version", "syntax"],
)
def test_a_wrong_recipe_is_refused_by_key(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "bundle.yml").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_recipe(tmp_path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bundle\.yml is missing"):
        read_recipe(tmp_path)


def test_the_bundle_carries_what_the_roles_install() -> None:
    assert {"libnuma1", "nginx", "prometheus"} <= set(debian_packages())
