"""The bill of materials names everything, is valid, and is the same for the same contents."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator

from rackserve.bundle._manifest import Model, Repository, Runtime
from rackserve.bundle._sbom import debian_components, python_components, sbom_of_tree

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


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {"locks/l.txt": LOCK, "apt/debian-12/Packages": PACKAGES}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def make(tree: Path, models: tuple[Model, ...] = (MODEL,)) -> str:
    return sbom_of_tree(tree, (RUNTIME,), models, (Repository("12", "apt/debian-12", {}),), None)


def test_everything_is_named_with_its_hashes(tree: Path) -> None:
    bill = json.loads(make(tree))
    named = {item["purl"]: [h["content"][0] for h in item.get("hashes", [])] for item in bill["components"]}
    assert named == {
        "pkg:pypi/torch@2.13.0%2Bcpu": ["a", "b"],
        "pkg:pypi/uv@0.13.9": ["c"],
        "pkg:deb/debian/nginx@1.22.1-9?arch=amd64&distro=debian-12": ["d"],
        "pkg:deb/debian/zlib1g@1:1.2?arch=amd64&distro=debian-12": ["e"],
        f"pkg:huggingface/org/name@{'0' * 40}": [],
    }


def test_it_is_valid(tree: Path) -> None:
    validator = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_6)
    assert validator.validate_str(make(tree)) is None
    assert validator.validate_str(make(tree).replace('"components"', '"component"', 1)) is not None


def test_equal_contents_have_equal_bills_and_others_have_not(tree: Path) -> None:
    assert make(tree) == make(tree)
    assert make(tree) != make(tree, models=())
    assert json.loads(make(tree))["serialNumber"] != json.loads(make(tree, models=()))["serialNumber"]


def test_nothing_comes_of_nothing() -> None:
    assert python_components("# only words\n") == []
    assert debian_components("\n\n", "12") == []
