# Apache License 2.0 (see LICENSE)
"""Does a value fit a JSON Schema? A small part of the standard, of which `unsupported` names whatever it leaves out.

Runs on the hosts: Python 3.9 or newer, standard library only. What it supports means what it means in JSON Schema
2020-12; docs/reference/gates.md lists the keywords.
"""

from __future__ import annotations

import operator
import re
from typing import Any, Callable, Dict, List  # noqa: UP035 - Python 3.9 runs this

_TYPES: Dict[str, Callable[[Any], bool]] = {  # noqa: UP006
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "number": lambda value: _is_number(value),  # noqa: PLW0108 - defined below
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_CHECKED = (
    *("type", "enum", "const", "properties", "required", "additionalProperties", "items", "pattern", "anyOf"),
    *_COUNTS,
    *_LIMITS,
)
# Said in a schema and without a meaning for what fits; `format` only where a validator is told to look at it.
_NOTES = ("$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "format")


def _is_number(value: Any) -> bool:  # noqa: ANN401 - what JSON holds
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def unsupported(schema: Any, place: str = "") -> List[str]:  # noqa: ANN401, UP006 - what JSON holds
    """Return one sentence for each thing in a schema that `violation` does not understand, with its place."""
    if isinstance(schema, bool):
        return []
    where = place or "the schema"
    if not isinstance(schema, dict):
        return [f"{where} is no JSON schema (found {schema!r})"]
    found = [
        f"{where} has {key!r}, which is not supported; supported are {', '.join(sorted(_CHECKED))}"
        for key in schema
        if key not in _CHECKED + _NOTES
    ]
    wrong = {key: value for key, value in schema.items() if key in _SHAPES and not _SHAPES[key](value)}
    found += [f"{where} has a wrong {key} (found {value!r})" for key, value in wrong.items()]
    for key, inner in schema.items():
        if key in wrong:
            continue
        if key in {"items", "additionalProperties"}:
            found += unsupported(inner, f"{place}{key}.".rstrip("."))
        elif key == "properties":
            for name, one in inner.items():
                found += unsupported(one, f"{place}.{name}".lstrip("."))
        elif key == "anyOf":
            for number, one in enumerate(inner, 1):
                found += unsupported(one, f"{place}.anyOf.{number}".lstrip("."))
    return found


def _is_pattern(value: Any) -> bool:  # noqa: ANN401 - what JSON holds
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error:
        return False


def _is_count(value: Any) -> bool:  # noqa: ANN401 - what JSON holds
    return _TYPES["integer"](value) and value >= 0


_SHAPES: Dict[str, Callable[[Any], bool]] = {  # noqa: UP006
    "type": lambda value: (
        (isinstance(value, str) and value in _TYPES)
        or (isinstance(value, list) and bool(value) and all(isinstance(one, str) and one in _TYPES for one in value))
    ),
    "enum": lambda value: isinstance(value, list),
    "properties": lambda value: isinstance(value, dict),
    "required": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    "anyOf": lambda value: isinstance(value, list) and bool(value),
    "pattern": _is_pattern,
    **dict.fromkeys(_COUNTS, _is_count),
    **dict.fromkeys(_LIMITS, _is_number),
}


def same(one: Any, other: Any) -> bool:  # noqa: ANN401 - what JSON holds
    """Return whether two values are equal in JSON, where true is not 1 and 1.0 is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def violation(value: Any, schema: Any, place: str = "") -> str:  # noqa: ANN401 - what JSON holds
    """Return the first thing in which a value does not fit a schema, empty where it fits."""
    where = place or "the value"
    if isinstance(schema, bool):
        return "" if schema else f"{where} is not allowed"
    for check in (_general, _of_number, _of_text, _of_list, _of_object):
        problem = check(value, schema, place, where)
        if problem:
            return problem
    return ""


def _general(value: Any, schema: Dict[str, Any], place: str, where: str) -> str:  # noqa: ANN401, UP006
    kinds = schema.get("type", list(_TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(_TYPES[kind](value) for kind in kinds):
        return f"{where} is {value!r}, not of type {' or '.join(kinds)}"
    if "enum" in schema and not any(same(value, one) for one in schema["enum"]):
        return f"{where} is {value!r}, none of {schema['enum']!r}"
    if "const" in schema and not same(value, schema["const"]):
        return f"{where} is {value!r}, not {schema['const']!r}"
    if "anyOf" in schema:
        problems = [violation(value, one, place) for one in schema["anyOf"]]
        if all(problems):
            return f"{where} fits none of anyOf: {problems[0]}"
    return ""


_OUTSIDE: Dict[str, Callable[[Any, Any], bool]] = {  # noqa: UP006
    "minimum": operator.lt,
    "maximum": operator.gt,
    "exclusiveMinimum": operator.le,
    "exclusiveMaximum": operator.ge,
}


def _of_number(value: Any, schema: Dict[str, Any], _place: str, where: str) -> str:  # noqa: ANN401, UP006
    if not _is_number(value):
        return ""
    broken = [key for key, is_out in _OUTSIDE.items() if key in schema and is_out(value, schema[key])]
    return f"{where} is {value!r}, and {broken[0]} is {schema[broken[0]]!r}" if broken else ""


def _of_text(value: Any, schema: Dict[str, Any], _place: str, where: str) -> str:  # noqa: ANN401, UP006
    if not isinstance(value, str):
        return ""
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return f"{where} has {len(value)} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{where} is {value!r}, which does not match {schema['pattern']!r}"
    return ""


def _of_list(value: Any, schema: Dict[str, Any], place: str, where: str) -> str:  # noqa: ANN401, UP006
    if not isinstance(value, list):
        return ""
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return f"{where} has {len(value)} items"
    problems = (violation(one, schema.get("items", True), f"{place}[{n}]") for n, one in enumerate(value))
    return next((problem for problem in problems if problem), "")


def _of_object(value: Any, schema: Dict[str, Any], place: str, where: str) -> str:  # noqa: ANN401, UP006
    if not isinstance(value, dict):
        return ""
    missing = [key for key in schema.get("required", ()) if key not in value]
    if missing:
        return f"{where} lacks {missing[0]!r}"
    known = schema.get("properties", {})
    for key, one in value.items():
        problem = violation(one, known.get(key, schema.get("additionalProperties", True)), f"{place}.{key}".lstrip("."))
        if problem:
            return problem
    return ""
