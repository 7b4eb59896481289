"""A new role passes the checks of every role as it is written."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[3]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / f"python/tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


new_role = tool("new_role")
check_roles = tool("check_roles")
role_readme = tool("role_readme")


@pytest.mark.parametrize("name", ["chrony", "synchronisation_of_time_2"])
def test_the_role_passes_the_checks(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new_role.main([name, "--package", "chrony", "--root", str(tmp_path)]) == 0
    shutil.copytree(ROOT / "roles/stack", tmp_path / "roles/stack")  # every role depends on it
    assert f"make bundle scenario NAME={name}" in capsys.readouterr().out
    assert check_roles.main(["--root", str(tmp_path)]) == 0
    assert role_readme.main(["--check", "--root", str(tmp_path)]) == 0
    lint = [sys.executable, "-m", "yamllint", "--strict", "--config-file", str(ROOT / ".yamllint"), str(tmp_path)]
    linted = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if "newrole" in f"{path}{path.read_text(encoding='utf-8')}"] == []


def test_the_role_installs_the_package_and_starts_the_unit(tmp_path: Path) -> None:
    arguments = ["time_sync", "--package", "chrony", "--unit", "chronyd.service", "--root", str(tmp_path)]
    assert new_role.main(arguments) == 0
    text = (tmp_path / "roles/time_sync/vars/main.yml").read_text(encoding="utf-8")
    assert text == "---\n__time_sync_packages: [chrony]\n__time_sync_unit: chronyd.service\n"
    assert 'host.service("chronyd.service")' in (tmp_path / "molecule/time_sync/tests/test_time_sync.py").read_text()


def test_package_and_unit_follow_from_the_name(tmp_path: Path) -> None:
    assert new_role.main(["node_exporter", "--root", str(tmp_path)]) == 0
    text = (tmp_path / "roles/node_exporter/vars/main.yml").read_text(encoding="utf-8")
    assert "[node-exporter]" in text
    assert "node-exporter.service" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Chrony"], "'Chrony' cannot be a role's name: use lower case"),
        (["time-sync"], "'time-sync' cannot be a role's name"),
        (["2time"], "'2time' cannot be a role's name"),
        (["../chrony"], "'../chrony' cannot be a role's name"),
        (["ansible"], "variables named ansible_... belong to no role"),
        (["taken"], "roles/taken exists"),
        (["tested"], "molecule/tested exists"),
        (["chrony", "--package", "Chrony!"], "'Chrony!' is not the name of a Debian package"),
        (["chrony", "--unit", "chrony"], "'chrony' is not the name of a service, such as chrony.service"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_name_that_cannot_be_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "roles/taken").mkdir(parents=True)
    (tmp_path / "molecule/tested").mkdir(parents=True)
    assert new_role.main([*arguments, "--root", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_make_hands_the_name_on() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "new-role", "NAME=Chrony"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "'Chrony' cannot be a role's name" in done.stderr
