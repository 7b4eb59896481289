"""The base of every schema of operators' input, and the one way to say what is wrong with such input."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A schema that takes no key that it does not know; its values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
