"""Reading lists of named receivers of an inventory: of alerts, and of samples."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from rackserve._schema import Strict, label_of, sentences
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


def without_password(url: str) -> str:
    """Return the URL of a receiver unchanged.

    Raises:
        ValueError: it is not an HTTP URL, or has a user or a password in it.
    """
    if not re.fullmatch(r"https?://[^\s/?#@]+([/?#]\S*)?", url):
        raise ValueError(
            "not an http:// or https:// URL, or one with a user and password, which the configuration would show; "
            "name a file with the secret"
        )
    return url


Url = Annotated[str, AfterValidator(without_password)]


class Named(Strict):
    """Fields of every receiver."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$", description="Name of the receiver: lower-case letters, digits and dashes."
    )


# Errors whose value may be shown. That of others, such as an unknown key, may be a secret.
_SHOWN: Final = {"literal_error", "string_pattern_mismatch"}
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
        reserved: names that are not allowed.

    Raises:
        InputError: naming the receiver and all that is wrong with it.
    """
    found: list[Receiver] = []
    for number, item in enumerate(raw):
        try:
            receiver = model.model_validate(item)
        except ValidationError as bad:
            label = label_of(item, "receiver", number)
            said = "; ".join(f"{label}: {sentence}" for sentence in sentences(bad, model, shown=_SHOWN))
            raise InputError(f"{variable}: {said}") from None
        if receiver.name in {other.name for other in found} | set(reserved):
            raise InputError(f"{variable}: the name {receiver.name} is taken; give each receiver its own")
        found.append(receiver)
    return found
