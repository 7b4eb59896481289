"""Findings of an audit, and the waivers by which an operator accepts them until a date."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - pydantic reads it
from typing import Final

from pydantic import Field

from rackserve._schema import Converting

NOT_AUDITED: Final = "not-audited"  # the id that waives a package that the service does not know


class Finding(Converting):
    """One known vulnerability of one pinned package."""

    package: str
    version: str
    id: str
    aliases: tuple[str, ...]
    fixed_in: tuple[str, ...]
    lock: str


class NotAudited(Converting):
    """A pinned package that could not be audited."""

    package: str
    version: str
    lock: str
    reason: str


class Waiver(Converting):
    """An accepted risk, until a date: a finding, or with `not-audited` a gap of the audit."""

    package: str
    id: str = Field(min_length=1, description=f"of the finding or one of its aliases, or {NOT_AUDITED}")
    reason: str = Field(min_length=1)
    until: dt.date

    def covers(self, item: Finding | NotAudited, today: dt.date) -> bool:
        """Return whether this waiver is for that item and has not expired."""
        ids = (item.id, *item.aliases) if isinstance(item, Finding) else (NOT_AUDITED,)
        return self.package == item.package and self.id in ids and today <= self.until
