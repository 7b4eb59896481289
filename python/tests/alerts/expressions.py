"""Which metrics a PromQL expression asks for."""

from __future__ import annotations

import re

_STRING = re.compile(r'"[^"]*"|\'[^\']*\'')
_BRACKETS = re.compile(r"\{[^}]*\}|\[[^\]]*\]")
_LABELS = re.compile(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w|\s*\()")
_WORDS = {"and", "or", "unless", "offset", "bool"}
_NUMBER = re.compile(r"\b\d[\w.]*")


def metrics_of(expression: str) -> set[str]:
    """Return the names of the series that an expression selects."""
    text = expression
    for pattern in (_STRING, _BRACKETS, _LABELS, _NUMBER):
        text = pattern.sub(" ", text)
    # An aggregation may have its grouping between its name and its bracket, so functions are told by what follows.
    return {name for name in _NAME.findall(re.sub(r"\b(sum|max|count|group)\b", " ", text)) if name not in _WORDS}
