"""The base classes of every input schema, and the messages for validation errors."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, Union

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A schema that takes no key that it does not know and converts no value; its values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Converting(Strict):
    """A strict schema that converts values: a list to a tuple, a text to a path or a date."""

    model_config = ConfigDict(strict=False)


def label_of(item: object, what: str, position: int) -> str:
    """Return the label of a list's item in messages: its name, else its number, from 1."""
    if isinstance(item, Mapping) and isinstance(item.get("name"), str):
        return f"{what} {item['name']!r}"
    return f"{what} number {position + 1}"


def parse_items(
    raw: Sequence[object], model: type[Model], what: str, *, shown: Collection[str] | None = None
) -> tuple[list[Model], list[str]]:
    """Read a list of items.

    Args:
        raw: the items.
        model: the schema of each.
        what: what an item is called in messages.
        shown: as for `sentences`.

    Returns:
        The items that fit the schema, and one sentence for each thing that is wrong with the others.
    """
    parsed: list[Model] = []
    problems: list[str] = []
    for position, item in enumerate(raw):
        try:
            parsed.append(model.model_validate(item))
        except ValidationError as wrong:
            label = label_of(item, what, position)
            problems += [f"{label}: {sentence}" for sentence in sentences(wrong, model, shown=shown)]
    return parsed, problems


def sentences(
    error: ValidationError, model: type[BaseModel], *, shown: Collection[str] | None = None, prefix: str = ""
) -> list[str]:
    """Return one sentence for each validation error: the key, the value found, and what to set.

    Args:
        error: what pydantic said.
        model: the schema that was validated.
        shown: types of errors (https://docs.pydantic.dev/latest/errors/validation_errors/) whose value may be shown,
            for input that may hold secrets; None shows every value.
        prefix: what stands before every key.
    """
    return [_sentence(details, model, shown, prefix) for details in _without_unions(error.errors(), model)]


def _without_unions(errors: Sequence[ErrorDetails], model: type[BaseModel]) -> list[ErrorDetails]:
    """Return one error for each value that fits no member of a union; pydantic gives one for each member.

    Where the value is of the kind of one member (a list with a wrong item), that member's errors are returned.
    """
    found: list[ErrorDetails] = []
    groups: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for details in errors:
        place, kinds = _union_of(model, details["loc"])
        if not kinds:
            found.append(details)
            continue
        if place not in groups:
            groups[place] = []
            found.append({**details, "loc": place, "msg": f"Input should be {_either(kinds)}"})
        groups[place].append(details)
    for place, group in groups.items():
        inside = [details for details in group if len(details["loc"]) > len(place) + 1]
        if inside:
            at = next(index for index, details in enumerate(found) if details["loc"] == place)
            found[at : at + 1] = [{**one, "loc": (*place, *one["loc"][len(place) + 1 :])} for one in inside]
    return found


_KINDS: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
}


def _union_of(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[tuple[int | str, ...], list[Any]]:
    """Return the first place on the way to an error where the schema has a union of plain types, and those types."""
    annotation: Any = model
    for depth, part in enumerate(loc):
        annotation = _inner(annotation, part)
        members = [m for m in _flat(annotation) if m is not type(None)]
        kinds = [typing.get_origin(member) or member for member in members]
        if len(members) > 1 and depth + 1 < len(loc) and all(kind in _KINDS for kind in kinds):
            return tuple(loc[: depth + 1]), kinds
        annotation = members[0] if len(members) == 1 else annotation
    return (), []


def _inner(annotation: Any, part: int | str) -> Any:  # noqa: ANN401 - any type that a field can have
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _annotation(annotation, str(part))
    inner = typing.get_args(annotation)
    return inner[-1] if inner else None


def _flat(annotation: Any) -> list[Any]:  # noqa: ANN401 - any type that a field can have
    """Return the members of a union; any other type is the only member of itself."""
    if typing.get_origin(annotation) is Annotated:
        return _flat(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (Union, UnionType):
        return [member for inner in typing.get_args(annotation) for member in _flat(inner)]
    return [annotation]


def _either(kinds: Sequence[Any]) -> str:
    names = [_KINDS[kind] for kind in kinds]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _sentence(error: ErrorDetails, model: type[BaseModel], shown: Collection[str] | None, prefix: str) -> str:
    key = prefix + _path(error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    found = f" (found {error['input']!r})" if shown is None or error["type"] in shown else ""
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, error["loc"])
        return f"unknown key {key!r}{found}{_likely(str(error['loc'][-1]), known)}; known keys are {', '.join(known)}"
    if error["type"] == "missing":
        return f"{key!r} is missing; set it"
    if not key:
        # A rule about several keys says itself what it found: its input is the whole item.
        return message if error["type"] == "value_error" else f"{message}{found}"
    return f"{key}: {message}{found}"


def _path(place: Sequence[int | str]) -> str:
    """Return a key as `lora.2.rank`; items of a list count from 1."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in place)


def _likely(name: str, known: Sequence[str]) -> str:
    likely = difflib.get_close_matches(name, known, n=1)
    return f", is it {likely[0]!r}?" if likely else ""


def _keys_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Return the keys that a schema knows beside an unknown one."""
    level = [model]
    for part in place[:-1]:
        inner = [m for one in level if isinstance(part, str) for m in _models_of(_annotation(one, part))]
        level = inner or level  # a number, or the tag of a union, names no field
    return list(dict.fromkeys(info.alias or name for one in level for name, info in one.model_fields.items()))


def _annotation(model: type[BaseModel], key: str) -> Any:  # noqa: ANN401 - any type that a field can have
    return next((info.annotation for name, info in model.model_fields.items() if key in (name, info.alias)), None)


def _models_of(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_of(inner)


def plain(value: object) -> Any:  # noqa: ANN401 - any value that YAML can hold
    """Return Ansible's lazy, tagged containers and strings as Python's own, which schemas can read.

    Other mappings stay as they are: `hostvars` would template every variable of every host.
    """
    if isinstance(value, dict):
        return {plain(key): plain(value[key]) for key in value}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value
