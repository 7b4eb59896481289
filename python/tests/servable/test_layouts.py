"""No repository that a release serves is refused, and one that a release is too old or too new for is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rackserve.servable import Use, facts_of, servable
from rackserve.vllm import releases
from testing.model_layouts import LAYOUTS

if TYPE_CHECKING:
    from testing.model_folders import Layout

VERSIONS = list(releases())


def served(layout: Layout) -> list[str]:
    return VERSIONS[VERSIONS.index(layout.first) : VERSIONS.index(layout.last) + 1]


def refused(folder: Path, version: str, use: Use | None) -> list[str]:
    return [finding.text for finding in servable(folder, version, use) if finding.refuses]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_repository_is_accepted_by_every_release_that_serves_it(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    folder = layout.write(tmp_path / "model")
    for version in served(layout):
        assert refused(folder, version, Use(**layout.use)) == [], version
        assert refused(folder, version, None) == [], version


@pytest.mark.parametrize("version", VERSIONS)
def test_the_counts_in_the_documentation_are_the_data(version: str) -> None:
    facts = facts_of(version)
    kinds = (facts.flags, facts.architectures, facts.transformers, facts.model_types, facts.quantization)
    page = (Path(__file__).parents[3] / "docs/reference/models.md").read_text(encoding="utf-8")
    assert f"| {version} | {' | '.join(str(len(kind)) for kind in kinds)} |" in page


def test_the_layouts_are_many() -> None:
    assert len(LAYOUTS) >= 60
