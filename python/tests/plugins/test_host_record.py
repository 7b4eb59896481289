"""The module `host_record` accepts what a person has seen; what it compares is tested with the program `host_state`."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.host_state import Host, RecordError

from rackserve.ansible.modules import host_record

MODE = "mode of /etc/a is 0666, recorded 0644"
STRAY = "/etc/x is nobody's"
PARAMS: dict[str, Any] = {"only": [], "before": {}, "owned": {}, "metrics": ""}


class Site:
    """A host whose record is a list of sentences, and what differs from it."""

    def __init__(self, differs: list[str], stays: list[str]) -> None:
        self.differs, self.stays, self.saved = differs, stays, 0

    def check(self, _host: object) -> dict[str, Any]:
        return {"differences": [{"text": text} for text in (self.stays if self.saved else self.differs)]}

    def save(self, *_: object) -> None:
        self.saved += 1


def write(monkeypatch: pytest.MonkeyPatch, site: Site, seen: list[str]) -> dict[str, Any]:
    monkeypatch.setattr(host_record, "check", site.check)
    monkeypatch.setattr(host_record, "save", site.save)
    monkeypatch.setattr(host_record, "load", lambda _host: {"roles": {}})
    monkeypatch.setattr(host_record, "new_record", lambda *_, **__: {"roles": {}})
    monkeypatch.setattr(host_record, "record_differs", lambda *_: True)
    accept = {"reason": "a vendor's fix", "seen": seen}
    return host_record.write(Host(), {**PARAMS, "accept": accept}, dry=False)


def test_what_was_seen_is_accepted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = write(monkeypatch, Site([MODE, STRAY], [STRAY]), [MODE, STRAY])
    assert found["rackserve_record"] == {"kind": "accept", "reason": "a vendor's fix", "differences": [MODE]}
    assert found["left"] == [STRAY], "what is nobody's stays a difference"


def test_what_came_since_refuses_all(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site([MODE, STRAY], [])
    with pytest.raises(host_record.UnseenError, match="/etc/x is nobody's; look again"):
        write(monkeypatch, site, [MODE])
    assert site.saved == 0


def test_without_a_record_nothing_can_be_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_host: object) -> dict[str, Any]:
        raise RecordError("record.json is missing: run rackserve apply")

    monkeypatch.setattr(host_record, "load", missing)
    accept = {"reason": "r", "seen": []}
    with pytest.raises(host_record.UnseenError, match="run rackserve apply"):
        host_record.write(Host(), {**PARAMS, "accept": accept}, dry=False)
