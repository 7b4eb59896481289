"""The one way to say what is wrong with an operator's input."""

from __future__ import annotations

from collections import UserDict
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from rackserve._schema import Strict, label_of, parse_items, plain, sentences


class Inner(Strict):
    size: int = Field(ge=1)
    source: Annotated[str, Field(alias="from")] = ""


class Outer(Strict):
    name: str
    parts: list[Inner] = Field(default=[])
    inner: Inner | None = None
    kind: Literal["a", "b"] = "a"

    @model_validator(mode="after")
    def _rule(self) -> Outer:
        if self.name == "both":
            raise ValueError("name and kind exclude each other; set one")
        return self


def said(raw: object, **options: Any) -> list[str]:
    with pytest.raises(ValidationError) as wrong:
        Outer.model_validate(raw)
    return sentences(wrong.value, Outer, **options)


def test_an_unknown_key_is_named_with_its_value_the_likely_key_and_all_keys() -> None:
    assert said({"name": "x", "partz": 1}) == [
        "unknown key 'partz' (found 1), is it 'parts'?; known keys are name, parts, inner, kind"
    ]
    assert said({"name": "x", "zzz": 1}) == ["unknown key 'zzz' (found 1); known keys are name, parts, inner, kind"]


@pytest.mark.parametrize("raw", [{"parts": [{"size": 1}, {"size": 1, "form": "x"}]}, {"inner": {"size": 1, "form": 0}}])
def test_an_unknown_nested_key_is_refused_with_the_keys_of_its_place(raw: dict[str, Any]) -> None:
    (sentence,) = said({"name": "x", **raw})
    assert "known keys are size, from" in sentence
    assert "is it 'from'?" in sentence


def test_items_of_a_list_count_from_one() -> None:
    assert said({"name": "x", "parts": [{"size": 1}, {"size": 0}]}) == [
        "parts.2.size: Input should be greater than or equal to 1 (found 0)"
    ]


def test_every_error_is_reported_with_its_prefix() -> None:
    assert said({"kind": "c"}, prefix="site.") == [
        "'site.name' is missing; set it",
        "site.kind: Input should be 'a' or 'b' (found 'c')",
    ]


def test_a_rule_about_several_keys_speaks_for_itself() -> None:
    assert said({"name": "both"}) == ["name and kind exclude each other; set one"]


def test_a_value_that_may_be_a_secret_is_not_shown_and_others_are() -> None:
    shown = frozenset({"literal_error"})
    assert "hunter2" not in " ".join(said({"name": "x", "password": "hunter2"}, shown=shown))
    assert "hunter2" not in " ".join(said("hunter2", shown=shown))
    assert "(found 'c')" in said({"name": "x", "kind": "c"}, shown=shown)[0]


def test_an_item_is_named_by_its_own_name_or_its_number() -> None:
    assert label_of({"name": "a"}, "client", 0) == "client 'a'"
    assert label_of({"name": 1}, "client", 1) == "client number 2"
    assert label_of("a", "client", 1) == "client number 2"


def test_lazy_values_of_ansible_are_read_through_their_interface() -> None:
    class Lazy(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            return f"templated {key}"

        def items(self) -> Any:
            return [(key, self[key]) for key in self]

    assert plain([Lazy(a="{{ x }}")]) == [{"a": "templated a"}]


def test_hostvars_stay_unread() -> None:
    hostvars: UserDict[str, Any] = UserDict(gpu1={})
    assert plain(hostvars) is hostvars


def test_items_that_fit_are_returned_and_every_other_is_named() -> None:
    parsed, problems = parse_items([{"name": "a"}, {"name": "b", "x": 1}, 3], Outer, "site")
    assert [item.name for item in parsed] == ["a"]
    assert [problem.partition(":")[0] for problem in problems] == ["site 'b'", "site number 3"]
    assert parse_items([{"name": "a"}], Outer, "site")[1] == []


class Loose(Strict):
    values: dict[str, bool | int | float | str | list[str] | dict[str, Any]] = Field(default={})
    gpus: list[int | str] = Field(default=[])
    maybe: int | str | None = None


KINDS = "true or false, a whole number, a number, a text, a list or a mapping"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"values": {"a": None}}, [f"values.a: Input should be {KINDS} (found None)"]),
        ({"values": {"a": None, "b": object}}, [f"values.{key}: Input should be {KINDS}" for key in "ab"]),
        ({"values": {"a": ["x", 1]}}, ["values.a.2: Input should be a valid string (found 1)"]),
        ({"gpus": [0, 1.5]}, ["gpus.2: Input should be a whole number or a text (found 1.5)"]),
        ({"maybe": []}, ["maybe: Input should be a whole number or a text (found [])"]),
        ({"gpus": 3}, ["gpus: Input should be a valid list (found 3)"]),
    ],
)
def test_a_value_that_fits_no_member_of_a_union_is_one_mistake(raw: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(ValidationError) as wrong:
        Loose.model_validate(raw)
    found = sentences(wrong.value, Loose)
    assert len(found) == len(expected)
    assert all(sentence.startswith(start) for sentence, start in zip(found, expected, strict=True))


def test_a_secret_in_a_union_is_not_shown() -> None:
    with pytest.raises(ValidationError) as wrong:
        Loose.model_validate({"maybe": ["hunter2"]})
    assert "hunter2" not in " ".join(sentences(wrong.value, Loose, shown=frozenset()))
