"""python/tools/structure.py: a small package whose figures can be counted by hand."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

FILES = {
    "__init__.py": "",
    "__main__.py": "from rackserve.cli import run\n",
    "errors.py": "class E(Exception):\n    pass\n",
    "cli/__init__.py": "from rackserve.cli._apply import apply\n\ndef run(argv): ...\n",
    "cli/_apply.py": "def apply(a, *b, c, **d):\n    import rackserve.edge._plan\n",
    "edge/__init__.py": "from . import _plan\n",
    "edge/_plan.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..errors import E\n",
    "ansible/module_utils/rackserve_host.py": "class Host:\n    def run(self, command): ...\n",
    "ansible/modules/one.py": "from ansible.module_utils.rackserve_host import Host\nimport os\n",
    "ansible/filters/rackserve.py": (
        "from rackserve import edge\n\nclass FilterModule:\n    def filters(self):\n        return {'a': 1, 'b': 2}\n"
    ),
}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "structure.py"
    spec = importlib.util.spec_from_file_location("structure", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "python" / "src" / "rackserve"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_every_figure_of_a_small_package(tool: ModuleType, package: Path, tmp_path: Path) -> None:
    del package
    assert tool.count(tmp_path) == {
        "figures": {
            "modules": 10,
            "modules at the top": 1,
            "components": 7,
            # __main__ to cli, cli to edge, edge to errors, modules to module_utils, filters to edge
            "imports between components": 5,
            "longest chain of imports": 4,
            "cycles of components": 0,
            "cycles of modules": 0,
            "Jinja filters": 2,
            "functions": 4,
            "arguments of a function, mean": 1.5,  # 1, 4, 1 and 0
            "lines": 21,
            "lines of a component, median": 2,
            "lines of the largest component": 5,
        },
        "cycles": {"components": [], "modules": []},
        "lines": {
            "__main__": 1,
            "ansible/filters": 5,
            "ansible/module_utils": 2,
            "ansible/modules": 2,
            "cli": 5,
            "edge": 4,
            "errors": 2,
        },
    }


def test_a_cycle_through_three_modules_is_one_of_their_components_too(
    tool: ModuleType, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "errors.py").write_text("def f():\n    from rackserve import cli\n", encoding="utf-8")
    assert tool.main(["--tree", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "cycle of components: cli, edge, errors\n" in printed
    assert "cycle of modules: rackserve.cli, rackserve.cli._apply, rackserve.edge._plan, rackserve.errors\n" in printed
    assert tool.count(tmp_path)["figures"]["longest chain of imports"] == 2


def test_a_comparison_has_both_columns_and_a_dash_for_what_one_lacks(
    tool: ModuleType, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tmp_path / "before.json"
    assert tool.main(["--tree", str(tmp_path), "--json"]) == 0
    before.write_text(capsys.readouterr().out, encoding="utf-8")
    measured = tmp_path / "measured.json"
    measured.write_text(json.dumps({"manifest reads": 1}), encoding="utf-8")
    (package / "new.py").touch()
    (tmp_path / ".test-results").mkdir()
    (tmp_path / ".test-results" / "seconds").write_text("42\n", encoding="utf-8")
    assert tool.main(["--tree", str(tmp_path), "--compare", str(before), "--measured", str(measured)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "| modules at the top | 1 | 2 |" in rows
    assert "| manifest reads | - | 1 |" in rows
    assert "| .ci/test, s | - | 42 |" in rows


def test_times_are_those_of_the_tree(tool: ModuleType, package: Path, tmp_path: Path) -> None:
    del package
    program = tmp_path / ".venv" / "bin" / "rackserve"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$*" >>asked\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "Makefile").write_text("check:\n\techo check >>asked\n", encoding="utf-8")
    seconds = tool.times(tmp_path)
    assert seconds.keys() == {f"{what}, s{of}" for what in ("rackserve --help", "make check") for of in ("", " of CPU")}
    assert (tmp_path / "asked").read_text().splitlines() == [*["--help"] * 5, "check"]


@pytest.mark.parametrize(
    ("options", "why"), [([], "has no Python module; set --tree"), (["--times"], "has no Python module")]
)
def test_another_folder_is_refused(
    tool: ModuleType, tmp_path: Path, options: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--tree", str(tmp_path), *options]) == 2
    assert why in capsys.readouterr().err


def test_times_without_an_environment_are_refused(
    tool: ModuleType, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del package
    assert tool.main(["--tree", str(tmp_path), "--times"]) == 2
    assert "rackserve is missing; run `make setup`" in capsys.readouterr().err


def test_a_filter_that_cannot_be_loaded_is_refused(
    tool: ModuleType, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "ansible/filters/rackserve.py").write_text("raise ValueError('broken')\n", encoding="utf-8")
    assert tool.main(["--tree", str(tmp_path)]) == 2
    assert "ValueError: broken" in capsys.readouterr().err
