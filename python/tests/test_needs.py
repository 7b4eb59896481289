"""A test that lacks a tool is skipped by its developer and fails in CI."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: "/usr/bin/git" if tool == "git" else None)


@pytest.mark.usefixtures("_bare")
def test_a_missing_tool_skips_and_names_its_package(
    needs: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"needs gpg, dpkg-deb: apt-get install dpkg gnupg"):
        needs("git", "gpg", "dpkg-deb")


@pytest.mark.usefixtures("_bare")
def test_in_ci_a_missing_tool_fails(needs: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"needs gpg: apt-get install gnupg; with CI=true"):
        needs("gpg")


@pytest.mark.parametrize("ci", ["true", ""])
def test_with_its_tools_a_test_runs(ci: str, needs: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    needs("gpg", "dpkg-deb")


@pytest.mark.usefixtures("_bare")
def test_the_mark_is_read_before_a_test_starts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    request.node.add_marker(pytest.mark.needs("chromium"))
    conftest = request.config.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))
    assert conftest
    with pytest.raises(pytest.fail.Exception, match=r"needs chromium: apt-get install chromium"):
        conftest.pytest_runtest_setup(request.node)
