"""Reads an inventory's YAML files, with one message for all their problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rackserve._schema import sentences
from rackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

Model = TypeVar("Model", bound=BaseModel)


def read_model(path: Path, model: type[Model], purpose: str) -> Model:
    """Read a YAML file as a pydantic model.

    Args:
        path: the file.
        model: what it must be.
        purpose: what the file is for, as in "it names who may sign bundles".

    Raises:
        InputError: when it is missing, no YAML, or not such a model; each wrong key is named with the value found.
    """
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {purpose} (see inventory/{path.name})") from None
    except yaml.YAMLError as bad:
        raise InputError(f"{path} is not YAML: {bad}") from bad
    except ValidationError as bad:
        raise InputError(f"{path} cannot be used; {purpose}:\n  " + "\n  ".join(sentences(bad, model))) from bad
