"""Reading lists of named receivers of an inventory: of alerts, and of samples."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


def without_password(url: str) -> str:
    """Return an address of a receiver as it is.

    Raises:
        ValueError: it is none of HTTP, or has a user or a password in it.
    """
    if not re.fullmatch(r"https?://[^\s/?#@]+([/?#]\S*)?", url):
        raise ValueError(
            "it is no http:// or https:// address, or holds a user and password, which a file of the configuration"
            " would show; name a file with the secret"
        )
    return url


Url = Annotated[str, AfterValidator(without_password)]


class Named(BaseModel):
    """What every receiver has."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


# Mistakes whose value is told. That of others, such as a key that we do not know, may be a secret.
_TOLD: Final = {"literal_error", "string_pattern_mismatch"}
Receiver = TypeVar("Receiver", bound=Named)


def parse_receivers(
    raw: Sequence[object],
    model: type[Receiver],
    variable: str,
    *,
    reserved: Collection[str] = (),
) -> list[Receiver]:
    """Return the receivers of a variable as models.

    Args:
        raw: the receivers as the inventory has them.
        model: what each must be.
        variable: its name, for messages.
        reserved: names that none may have.

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
            value = f" (found {first['input']!r})" if first["type"] in _TOLD else ""
            raise InputError(f"{variable}: receiver {name}: {key}: {first['msg']}{value}") from None
        if receiver.name in {other.name for other in found} | set(reserved):
            raise InputError(f"{variable}: the name {receiver.name} is taken; give each receiver its own")
        found.append(receiver)
    return found
