"""A bundle is built only with an audit that passed, or with the reason why there is none."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rackserve.bundle import _build
from rackserve.bundle._audit import Audit
from rackserve.bundle._manifest import scan
from rackserve.bundle._progress import Progress
from rackserve.bundle._recipe import Recipe
from rackserve.bundle._waivers import Finding
from rackserve.errors import BundleError, InputError
from testing import bundles as making

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = Recipe.model_validate(
    {"name": "lab", "version": 1, "targets": [{"distribution": "debian", "release": "12"}], "models": []}
)


def answer(*findings: Finding) -> Audit:
    now = dt.datetime.now(dt.UTC)
    return Audit(
        tool="pip-audit", version="2", service="osv", made_at=now, audited=1, findings=findings, not_audited=()
    )


def test_an_audit_that_finds_nothing_lets_the_build_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_build, "audit", lambda _: answer())
    assert _build._audited(RECIPE, Progress(), None).ok is True


def test_a_finding_stops_the_build_before_it_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Finding(package="torch", version="2", id="CVE-1", aliases=(), fixed_in=("3",), lock="l")
    monkeypatch.setattr(_build, "audit", lambda _: answer(found))
    with pytest.raises(BundleError, match=r"CVE-1.*`waivers` in bundle\.yml"):
        _build._audited(RECIPE, Progress(), None)


def test_no_answer_stops_the_build_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_build, "audit", lambda _: answer().model_copy(update={"audited": 0}))
    with pytest.raises(BundleError, match=r"--no-audit REASON"):
        _build._audited(RECIPE, Progress(), None)


def test_without_an_audit_the_reason_is_recorded_and_it_is_no_pass() -> None:
    verdict = _build._audited(RECIPE, Progress(), "no service here")
    assert (verdict.ok, verdict.reason) == (None, "not asked: no service here")


@pytest.mark.parametrize(
    "name", ["Manifest.json", "BLOBS/aa", "Attestations/x", "x.parts.json", "host-parts.json", "a b"]
)
def test_a_file_that_no_import_would_accept_stops_the_build(tmp_path: Path, name: str) -> None:
    manifest = making.write_tree(tmp_path / "tree")
    (tmp_path / "tree" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "tree" / name).write_text("x")
    with pytest.raises(BundleError, match=r"no rackserve would import this bundle: manifest\.json names"):
        _build.pack(tmp_path / "tree", replace(manifest, files=scan(tmp_path / "tree")), tmp_path / "archive")
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize("version", [0, -1, 10**15])
def test_a_version_that_no_import_would_accept_stops_the_build_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr(_build, "read_recipe", lambda _: RECIPE)
    with pytest.raises(InputError, match=f"--bundle-version is {version}; give a whole number from 1"):
        _build.build(tmp_path, tmp_path / "out", Progress(), key=tmp_path / "key", version=version)
