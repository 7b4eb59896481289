"""`trust.yml` of an inventory: who may sign the bundles that this site installs."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date  # noqa: TC003 - pydantic reads it
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from rackserve._paths import state_dir
from rackserve._schema import Converting
from rackserve._yaml import read_model
from rackserve.errors import InputError
from rackserve.programs.verify_bundle import ATTESTED, NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

TRUST = "trust.yml"
_PUBLIC_KEY = r"^(ssh|sk-ssh|ecdsa|sk-ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+( .*)?$"

PublicKey = Annotated[str, Field(pattern=_PUBLIC_KEY)]


class Signer(Converting):
    """One who may sign: the key itself, or the file that holds it, under rackserve's state folder if relative."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9@._-]*$")
    key: PublicKey | None = None
    key_file: Path | None = None
    valid_before: date | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if (self.key is None) == (self.key_file is None):
            raise ValueError("give one of key and key_file")
        return self

    def line(self) -> str:
        """Return its line of an allowed-signers file (ssh-keygen(1)).

        Raises:
            InputError: when the key file cannot be read.
        """
        key = self.key
        if self.key_file is not None:
            path = state_dir() / self.key_file
            try:
                key = path.read_text(encoding="utf-8").strip()
            except OSError as failed:
                raise InputError(
                    f"the public key of {self.name} cannot be read from {path} ({failed.strerror}); put it there, or "
                    f"make a key with `rackserve bundle key {path.stem}`"
                ) from failed
        until = f',valid-before="{self.valid_before:%Y%m%d}Z"' if self.valid_before else ""
        return f'{self.name} namespaces="{NAMESPACE},{ATTESTED}"{until} {key}'


class _TrustFile(Converting):
    signers: tuple[Signer, ...] = Field(min_length=1)
    revoked: tuple[PublicKey, ...] = ()


@dataclass(frozen=True)
class Trust:
    """The two files that ssh-keygen reads, as texts."""

    signers: str
    revoked: str

    @contextmanager
    def files(self) -> Iterator[tuple[str, str]]:
        """Give the paths of both texts as files for as long as they are needed."""
        with tempfile.TemporaryDirectory(prefix="rackserve-trust-") as folder:
            signers, revoked = Path(folder, "signers"), Path(folder, "revoked")
            signers.write_text(self.signers, encoding="utf-8")
            revoked.write_text(self.revoked, encoding="utf-8")
            yield str(signers), str(revoked)


def read_trust(path: Path) -> Trust:
    """Read an inventory's `trust.yml`.

    Raises:
        InputError: when it is missing or has an unknown key.
    """
    read = read_model(path, _TrustFile, "it names who may sign bundles")
    return Trust(
        signers="".join(f"{signer.line()}\n" for signer in read.signers),
        revoked="".join(f"{key}\n" for key in read.revoked),
    )
