"""Rule files of a site. promtool checks their expressions; further rules are checked here. Exposed as a filter."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_VARIABLE: Final = "prometheus_rule_files"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.yml")
_SEVERITIES: Final = ("critical", "warning", "none")


def rule_files(paths: Sequence[object], inventory: Path) -> dict[str, str]:
    """Return the rule files of a site on the controller, by the name that they get on the host.

    Args:
        paths: prometheus_rule_files.
        inventory: directory that they are relative to.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    found: dict[str, str] = {}
    for raw in paths:
        path = inventory / str(raw)
        if not _NAME.fullmatch(path.name):
            raise InputError(f"{_VARIABLE}: {raw}: the name must end in .yml, without blanks; rename the file")
        if path.name in found:
            raise InputError(f"{_VARIABLE}: {raw}: {found[path.name]} has the same name; rename one of the two")
        if not path.is_file():
            raise InputError(
                f"{_VARIABLE}: {raw}: {path} is not a file on the controller; correct the path, which is absolute or "
                "relative to the inventory"
            )
        if reason := next(_problems(path), None):
            raise InputError(f"{_VARIABLE}: {raw}: {reason}")
        found[path.name] = str(path)
    return found


def _problems(path: Path) -> Iterator[str]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as bad:
        yield f"it is not YAML: {' '.join(str(bad).split())}"
        return
    rules = _rules(content)
    if not rules:
        yield "it has no rules; Prometheus reads groups, each with a list of rules"
    for rule in rules:
        # The same series from two rules ends the evaluation of both.
        if str(rule.get("record", "")).startswith("rackserve:"):
            yield f"rule {rule['record']}: rackserve records the series of this prefix; choose another name"
        labels = rule.get("labels")
        severity = labels.get("severity") if isinstance(labels, dict) else None
        if "alert" in rule and severity not in _SEVERITIES:
            yield (
                f"alert {rule['alert']}: its label severity is {severity!r}, which no receiver gets; set one of "
                f"{', '.join(_SEVERITIES)}"
            )


def _rules(content: object) -> list[dict[str, Any]]:
    groups = content.get("groups") if isinstance(content, dict) else None
    listed = [group.get("rules") for group in groups if isinstance(group, dict)] if isinstance(groups, list) else []
    rules = [rule for rules in listed if isinstance(rules, list) for rule in rules]
    return [rule for rule in rules if isinstance(rule, dict)]
