"""Causes by engines' own words, typed: the reader of `data/engine_causes.yml`."""

from __future__ import annotations

import re  # noqa: TC003 - pydantic reads it
from functools import cache
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import Field, TypeAdapter, model_validator

from rackserve._schema import Converting

_DATA: Final = Path(__file__).parents[1] / "data" / "engine_causes.yml"


class Cause(Converting):
    """A cause that a failure of an engine can name.

    Attributes:
        name: the rule's name in a finding.
        weight: likelihood in percent.
        says: patterns, one of which its line or the details after it have to match; none where `frames` is enough.
        frames: patterns, one of which a frame of its traceback has to match; none where `says` is enough.
        served: whether the engine has to have served before; None for either.
        cause: what is wrong.
        fix: what to do; NAME stands for the instance.
    """

    name: str = Field(pattern=r"^[a-z]+(-[a-z]+)*$")
    weight: Annotated[int, Field(gt=0, lt=100)]
    says: tuple[re.Pattern[str], ...] = ()
    frames: tuple[re.Pattern[str], ...] = ()
    served: bool | None = None
    cause: str
    fix: str

    @model_validator(mode="after")
    def _matches_something(self) -> Cause:
        if not (self.says or self.frames):
            raise ValueError(f"{self.name} has neither says nor frames")
        return self

    def names(self, text: str, frames: list[str], *, served: bool) -> bool:
        """Return whether a failure's text and traceback name this cause."""
        return (
            (self.served is None or self.served == served)
            and (not self.says or any(pattern.search(text) for pattern in self.says))
            and (not self.frames or any(pattern.search(frame) for pattern in self.frames for frame in frames))
        )


@cache
def causes() -> tuple[Cause, ...]:
    """Return all causes."""
    return tuple(TypeAdapter(list[Cause]).validate_python(yaml.safe_load(_DATA.read_text(encoding="utf-8"))))
