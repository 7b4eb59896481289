"""The rule files of a site: what is taken, and what is refused with one reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from rackserve.errors import InputError
from rackserve.monitoring import rule_files

if TYPE_CHECKING:
    from pathlib import Path

ALERT: dict[str, Any] = {"alert": "A", "expr": "up == 0", "labels": {"severity": "warning"}}


def write(path: Path, *rules: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": list(rules)}]}), encoding="utf-8")
    return path


def test_files_are_taken_from_the_inventory_and_from_elsewhere(tmp_path: Path) -> None:
    one = write(tmp_path / "inventory/rules/one.yml", ALERT, {"record": "site:up", "expr": "sum(up)"})
    two = write(tmp_path / "two.yml", ALERT)
    assert rule_files(["rules/one.yml", str(two)], tmp_path / "inventory") == {
        "one.yml": str(one),
        "two.yml": str(two),
    }
    assert rule_files([], tmp_path) == {}


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["gone.yml"], "gone.yml: {}/gone.yml is not a file on the controller; correct the path, which is"),
        (["good.yml", "other/good.yml"], "other/good.yml: {}/good.yml has the same name; rename one of the two"),
        (["good.yml", "good.yml"], "good.yml: {}/good.yml has the same name"),
        (["good.rules"], "good.rules: the name must end in .yml, without blanks; rename the file"),
        (["a file.yml"], "a file.yml: the name must end in .yml"),
        (["broken.yml"], "broken.yml: it is not YAML: "),
        (["empty.yml"], "empty.yml: it has no rules; Prometheus reads groups, each with a list of rules"),
        (["list.yml"], "list.yml: it has no rules"),
        (["ours.yml"], "ours.yml: rule rackserve:waiting: rackserve records the series of this prefix; choose another"),
        (
            ["silent.yml"],
            "silent.yml: alert A: its label severity is None, which no receiver gets; set one of critical",
        ),
        (["page.yml"], "page.yml: alert A: its label severity is 'page', which no receiver gets"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, paths: list[str], reason: str) -> None:
    for name in ("good.yml", "other/good.yml", "good.rules", "a file.yml"):
        write(tmp_path / name, ALERT)
    write(tmp_path / "ours.yml", {"record": "rackserve:waiting", "expr": "1"})
    write(tmp_path / "silent.yml", {"alert": "A", "expr": "up"})
    write(tmp_path / "page.yml", {**ALERT, "labels": {"severity": "page"}})
    (tmp_path / "broken.yml").write_text("groups: [", encoding="utf-8")
    (tmp_path / "empty.yml").write_text("", encoding="utf-8")
    (tmp_path / "list.yml").write_text("[{groups: []}]", encoding="utf-8")
    with pytest.raises(InputError) as refused:
        rule_files(paths, tmp_path)
    assert str(refused.value).startswith("prometheus_rule_files: ")
    assert reason.format(tmp_path) in str(refused.value)
