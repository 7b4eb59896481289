"""The pure pieces that a bundle is built with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rackserve._paths import project_root
from rackserve.bundle._manifest import sha256_of
from rackserve.bundle._models import build_model, check_model, derived_revision
from rackserve.bundle._progress import Progress
from rackserve.bundle._recipe import (
    FolderSource,
    ModelRecipe,
    RandomLoraSource,
    RandomSource,
    RuntimeRecipe,
    debian_packages,
    read_recipe,
)
from rackserve.errors import InputError
from testing.model_layouts import LAYOUTS


def test_a_lock_is_named_after_what_it_is_for() -> None:
    assert RuntimeRecipe(vllm="0.32.0", flavour="cpu", python="3.11").lock_name == "vllm-0.32.0-cpu-py311"
    assert RuntimeRecipe(vllm="0.33.0", flavour="cuda", python="3.11").lock_name == "vllm-0.33.0-cuda-py311"


def test_the_labs_models_are_pinned_to_what_their_sources_give() -> None:
    for model in read_recipe(project_root() / "inventory").models:
        assert not isinstance(model.source, FolderSource)
        assert model.revision == derived_revision(model.source)


def test_a_wrong_revision_is_refused_with_the_right_one(tmp_path: Path) -> None:
    source = RandomSource(kind="random_llama", seed=1)
    recipe = ModelRecipe(repo="a/b", revision="f" * 40, source=source)
    with pytest.raises(InputError, match=derived_revision(source)):
        build_model(recipe, tmp_path / "out", tmp_path, Progress())


def test_another_seed_is_another_revision() -> None:
    seeds = (RandomSource(kind="random_llama", seed=seed) for seed in range(3))
    assert len({derived_revision(source) for source in seeds}) == 3


def test_an_adapter_whose_model_is_not_there_is_refused_with_what_to_add(tmp_path: Path) -> None:
    source = RandomLoraSource(kind="random_lora", base="o/base", base_revision="b" * 40)
    recipe = ModelRecipe(repo="a/lora", revision=derived_revision(source), source=source)
    with pytest.raises(InputError, match=f"a/lora adapts o/base at {'b' * 40}, .*add that model above it"):
        build_model(recipe, tmp_path / "out", tmp_path, Progress())


def test_a_downloaded_snapshot_is_taken_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "hub/sub").mkdir(parents=True)
    for name in ("config.json", "sub/model.safetensors", "not-pinned.bin"):
        (tmp_path / "hub" / name).write_text(name)
    pins = {name: sha256_of(tmp_path / "hub" / name) for name in ("config.json", "sub/model.safetensors")}
    source = FolderSource(kind="folder", path=tmp_path / "hub", files=pins)
    recipe = ModelRecipe(repo="a/b", revision="f" * 40, source=source)
    folder = build_model(recipe, tmp_path / "out", tmp_path, Progress())
    assert folder == tmp_path / "out/models/a--b" / ("f" * 40)
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == set(pins)


def test_a_downloaded_snapshot_that_is_another_is_refused_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    source = FolderSource(kind="folder", path=tmp_path, files={"config.json": "0" * 64, "gone.json": "1" * 64})
    recipe = ModelRecipe(repo="a/b", revision="f" * 40, source=source)
    with pytest.raises(InputError, match=r"config\.json has sha256 .*, bundle\.yml says 000.*gone\.json is missing"):
        build_model(recipe, tmp_path / "out", tmp_path, Progress())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", ""])
def test_a_snapshot_names_no_file_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="inside the snapshot"):
        FolderSource(kind="folder", path=Path("/"), files={name: "0" * 64})


NAMED = "name: lab\nversion: 1\n"
TARGET = "{distribution: debian, release: '12'}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{NAMED}targets: [{{distribution: debian, release: '11'}}]\nmodels: []\n", "targets.1.release"),
        (f"{NAMED}targets: []\nmodels: []\n", "targets: Tuple should have at least 1 item"),
        (f"{NAMED}targets: [{TARGET}, {TARGET}]\nmodels: []\n", "Debian 12 is listed twice"),
        (f"{NAMED}targets: [{TARGET}]\nmodels: []\nmodel: []\n", "unknown key 'model'"),
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


class Told(Progress):
    """Keeps what a build says."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def say(self, step: str) -> None:
        self.steps.append(step)


def test_a_model_that_every_release_refuses_stops_the_build(tmp_path: Path) -> None:
    folder = replace(LAYOUTS["qwen 3"], weights=2).write(tmp_path / "model")
    check_model("o/m", folder, ["0.6.4.post1", "0.33.0"], told := Told())
    (step,) = told.steps
    assert step.startswith("  o/m: its architecture Qwen3ForCausalLM is not one that vLLM 0.6.4.post1 serves: it came")
    with pytest.raises(InputError, match=r"^o/m cannot be served: its architecture Qwen3ForCausalLM is not one"):
        check_model("o/m", folder, ["0.6.4.post1"], Told())
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"names 2 files, and model-00002-of-00002\.safetensors is missing; add what"):
        check_model("o/m", folder, ["0.33.0"], Told())


def test_what_an_instance_may_still_bring_is_told(tmp_path: Path) -> None:
    folder = LAYOUTS["qwen 3"].write(tmp_path / "model")
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink()
    check_model("o/m", folder, ["0.32.0", "0.33.0"], told := Told())
    assert [step.partition(";")[0] for step in told.steps] == ["  o/m: it has no tokenizer"]


def test_a_whole_model_is_built_without_a_word(tmp_path: Path) -> None:
    check_model("o/m", LAYOUTS["qwen 3"].write(tmp_path / "model"), ["0.33.0"], told := Told())
    check_model("o/m", tmp_path / "model", [], told)
    assert told.steps == []
