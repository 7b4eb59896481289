"""Our part of JSON Schema means what the library of that name says; the library is for tests only."""

from __future__ import annotations

import itertools
from typing import Any

import jsonschema
import pytest

from rackserve.ansible.module_utils.rackserve_json_schema import unsupported, violation

SCHEMAS: list[Any] = [
    True,
    False,
    {},
    *({"type": kind} for kind in ("null", "boolean", "integer", "number", "string", "array", "object")),
    {"type": ["string", "null"]},
    {"enum": [1, "a", None, [1], {"a": 1}]},
    {"enum": [True]},
    {"const": 0},
    {"const": False},
    {"minimum": 1, "maximum": 2},
    {"exclusiveMinimum": 0, "exclusiveMaximum": 2},
    {"minLength": 1, "maxLength": 2},
    {"pattern": "^a"},
    {"items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
    {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"properties": {"a": True}, "additionalProperties": False},
    {"additionalProperties": {"type": "string"}},
    {"anyOf": [{"type": "integer"}, {"required": ["a"]}, False]},
    {"title": "t", "description": "d", "default": 1, "examples": [1], "format": "date"},
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 1.0, 1.5, 2, -1, 1e300, "", "a", "ab", "abc", "b"),
    *([], [1], [1, "a"], [1, 2, 3], [True], [[]]),
    *({}, {"a": 1}, {"a": "b"}, {"a": 1.0, "b": 2}, {"b": "c"}, {"a": True}),
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_the_library_says_the_same(schema: Any) -> None:
    assert unsupported(schema) == []
    validator = jsonschema.Draft202012Validator(schema)
    for value in VALUES:
        assert (violation(value, schema) == "") == validator.is_valid(value), value


def test_two_keywords_together_are_both_checked() -> None:
    for one, other in itertools.combinations([schema for schema in SCHEMAS if isinstance(schema, dict)], 2):
        schema = {**one, **other}
        validator = jsonschema.Draft202012Validator(schema)
        for value in VALUES:
            assert (violation(value, schema) == "") == validator.is_valid(value), (schema, value)


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        ({"$ref": "#"}, "'$ref', which is not supported"),
        ({"oneOf": []}, "'oneOf'"),
        ({"properties": {"a": {"not": {}}}}, "a has 'not'"),
        ({"items": {"anyOf": [{"allOf": []}]}}, "'allOf'"),
        ({"type": "text"}, "a wrong type (found 'text')"),
        ({"pattern": "("}, "a wrong pattern"),
        ({"required": "a"}, "a wrong required"),
        ({"minItems": -1}, "a wrong minItems"),
        ("a", "is no JSON schema"),
    ],
)
def test_what_is_not_understood_is_named(schema: Any, part: str) -> None:
    found = unsupported(schema)
    assert len(found) == 1
    assert part in found[0]


def test_a_violation_names_its_place() -> None:
    schema = {"properties": {"rows": {"items": {"properties": {"n": {"type": "integer"}}}}}}
    assert violation({"rows": [{"n": 1}, {"n": "x"}]}, schema) == "rows[1].n is 'x', not of type integer"
