"""Reading lists of named receivers of an inventory: of alerts, and of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class Named(BaseModel):
    """What every receiver has."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


Receiver = TypeVar("Receiver", bound=Named)


def parse_receivers(
    raw: Sequence[object],
    model: type[Receiver],
    variable: str,
    *,
    reserved: Collection[str] = (),
    values_told: bool = True,
) -> list[Receiver]:
    """Return the receivers of a variable as models.

    Args:
        raw: the receivers as the inventory has them.
        model: what each must be.
        variable: its name, for messages.
        reserved: names that none may have.
        values_told: a message has the value found; not where that may be a password.

    Raises:
        InputError: naming the receiver and the first thing that is wrong with it.
    """
    found: list[Receiver] = []
    for number, item in enumerate(raw):
        name = item.get("name", f"number {number + 1}") if isinstance(item, dict) else f"number {number + 1}"
        try:
            receiver = model.model_validate(item)
        except ValidationError as bad:
            first = bad.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "it"
            value = f" (found {first['input']!r})" if values_told else ""
            raise InputError(f"{variable}: receiver {name}: {key}: {first['msg']}{value}") from None
        if receiver.name in {other.name for other in found} | set(reserved):
            raise InputError(f"{variable}: the name {receiver.name} is taken; give each receiver its own")
        found.append(receiver)
    return found
