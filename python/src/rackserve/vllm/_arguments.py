"""What rackserve knows of the flags of `vllm serve`, whatever the release: the reader of `data/vllm_arguments.yml`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import Field

from rackserve._schema import Strict

if TYPE_CHECKING:
    from collections.abc import Mapping

_DATA: Final = Path(__file__).parents[1] / "data" / "vllm_arguments.yml"


class _Refused(Strict):
    flags: list[str]
    why: str
    instead: str
    but: dict[str, list[Any]] = Field(default={})


class _File(Strict):
    owned: dict[str, str]
    refused: list[_Refused]
    short: dict[str, str]
    written: list[str]
    remote_connectors: list[str]


@cache
def _data() -> _File:
    return _File.model_validate(yaml.safe_load(_DATA.read_text(encoding="utf-8")))


def flag_of(key: str) -> str:
    """Return the flag that a key of `extra_args` sets: `compilation-config` for `compilation-config.mode`."""
    return key.split(".", 1)[0].removesuffix("+")


def switch_of(flag: str) -> str:
    """Return one name for a switch and its negations: `prefix-caching` for `no-enable-prefix-caching`.

    `disable-x` is the negation of `enable-x` from 0.33.0 on (vllm/utils/argparse_utils.py).
    """
    return re.sub(r"^(enable|disable)-", "", flag.removeprefix("no-"))


@cache
def _owners() -> Mapping[str, str]:
    names = {switch_of(flag) if flag.startswith("enable-") else flag: what for flag, what in _data().owned.items()}
    return {**names, **_data().owned}


def owner_of(flag: str) -> str | None:
    """Return what to do instead of setting a flag that a key of the inventory decides; None for any other flag."""
    return _owners().get(flag) or (_owners().get(switch_of(flag)) if switch_of(flag) != flag else None)


@cache
def _refusals() -> Mapping[str, _Refused]:
    return {flag: row for row in _data().refused for flag in row.flags}


def refusal_of(flag: str, value: object) -> str | None:
    """Return why an instance cannot have a flag with this value, and what to do; None where it can."""
    row = _refusals().get(flag)
    if row is None or str(value) in map(str, row.but.get(flag, ())):
        return None
    return f"{row.why}; {row.instead}"


def long_name(name: str) -> str | None:
    """Return the flag behind a short name, `tp` for one; None where there is none."""
    return _data().short.get(name)


def written_paths() -> frozenset[str]:
    """Return the flags, with a key of their JSON behind a dot, that name a place to write."""
    return frozenset(_data().written)


def remote_connectors() -> frozenset[str]:
    """Return the connectors of kv-transfer-config that need another engine or server."""
    return frozenset(_data().remote_connectors)
