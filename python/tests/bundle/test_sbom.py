"""The bill of materials names everything, is valid, and is the same for the same contents."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator

from rackserve.bundle._manifest import Controller, Model, Repository, Runtime, scan
from rackserve.bundle._sbom import debian_components, python_components, sbom, sbom_of_tree

if TYPE_CHECKING:
    from pathlib import Path

LOCK = (
    "# vLLM\n"
    f"torch==2.13.0+cpu \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n"
    f"uv==0.13.9 \\\n    --hash=sha256:{'c' * 64}\n"
)
PACKAGES = (
    f"Package: nginx\nVersion: 1.22.1-9\nArchitecture: amd64\nSHA256: {'d' * 64}\nDescription: small\n web server\n\n"
    f"Package: zlib1g\nVersion: 1:1.2\nArchitecture: amd64\nSHA256: {'e' * 64}\n\n"
)
RUNTIME = Runtime("r", "0.32.0", "cpu", "3.11", "locks/l.txt", "0" * 64, "wheels/l")
MODEL = Model("org/name", "0" * 40, "models/x", 5)
CONTROLLER = Controller("3.11", "controller", "controller/project.tar", "controller/locks/controller.txt", "0" * 40)
FILES = {
    "locks/l.txt": LOCK,
    "apt/debian-12/Packages": PACKAGES,
    "models/x/config.json": "{}",
    "models/x/sub/weights": "abc",
    "controller/locks/controller.txt": f"uv==0.13.9 \\\n    --hash=sha256:{'f' * 64}\n",
    "controller/locks/uv.txt": f"uv-tool==1 \\\n    --hash=sha256:{'9' * 64}\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def make(tree: Path, models: tuple[Model, ...] = (MODEL,), controller: Controller | None = None) -> str:
    repositories = (Repository("12", "apt/debian-12", {}),)
    return sbom_of_tree(
        tree, scan(tree), runtimes=(RUNTIME,), models=models, repositories=repositories, controller=controller
    )


def hashes_of(bill: str) -> dict[str, list[str]]:
    items = json.loads(bill)["components"]
    return {item["purl"]: [found["content"][0] for found in item.get("hashes", [])] for item in items}


def test_everything_is_named_with_its_hashes(tree: Path) -> None:
    assert hashes_of(make(tree)) == {
        "pkg:pypi/torch@2.13.0%2Bcpu": ["a", "b"],
        "pkg:pypi/uv@0.13.9": ["c"],
        "pkg:deb/debian/nginx@1.22.1-9?arch=amd64&distro=debian-12": ["d"],
        "pkg:deb/debian/zlib1g@1:1.2?arch=amd64&distro=debian-12": ["e"],
        f"pkg:huggingface/org/name@{'0' * 40}": [],
    }


def test_every_file_of_a_model_is_named_with_its_hash(tree: Path) -> None:
    (model,) = (item for item in json.loads(make(tree))["components"] if item["type"] == "machine-learning-model")
    assert {file["name"]: file["hashes"][0]["content"] for file in model["components"]} == {
        "config.json": hashlib.sha256(b"{}").hexdigest(),
        "sub/weights": hashlib.sha256(b"abc").hexdigest(),
    }


def test_the_controllers_locks_are_in_it_and_a_shared_pin_has_the_hashes_of_both(tree: Path) -> None:
    named = hashes_of(make(tree, controller=CONTROLLER))
    assert named["pkg:pypi/uv@0.13.9"] == ["c", "f"]
    assert named["pkg:pypi/uv-tool@1"] == ["9"]


def test_it_is_valid(tree: Path) -> None:
    validator = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_6)
    assert validator.validate_str(make(tree)) is None
    assert validator.validate_str(make(tree).replace('"components"', '"component"', 1)) is not None


def test_equal_contents_have_equal_bills_and_others_have_not(tree: Path) -> None:
    assert make(tree) == make(tree)
    assert make(tree) != make(tree, models=())
    assert json.loads(make(tree))["serialNumber"] != json.loads(make(tree, models=()))["serialNumber"]


@pytest.mark.parametrize("name", ["locks/l.txt", "apt/debian-12/Packages", "models/x/config.json"])
def test_another_content_of_the_same_name_has_another_serial_number(tree: Path, name: str) -> None:
    before = json.loads(make(tree))["serialNumber"]
    text = FILES[name].replace("a" * 64, "8" * 64).replace("d" * 64, "8" * 64).replace("{}", "[]")
    (tree / name).write_text(text)
    assert json.loads(make(tree))["serialNumber"] != before


def test_the_order_of_what_is_found_changes_nothing() -> None:
    found = [*python_components(LOCK), *debian_components(PACKAGES, "12")]
    assert sbom(found) == sbom(reversed(found))


def test_it_has_no_date(tree: Path) -> None:
    assert json.loads(make(tree))["metadata"] == {}


def test_nothing_comes_of_nothing() -> None:
    assert python_components("# only words\n") == []
    assert debian_components("\n\n", "12") == []
