"""The run of this process: what the callback `record_run` knows of it, which every worker of Ansible inherits."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rackserve import __version__
from rackserve.history._sign import signed_line

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_DIR: Final = "RACKSERVE_RUN_DIR"
"""Environment variable by which a command tells ansible-playbook the folder of its record; its name is the run's id."""

SHARED: Final = ("bundle", "consent", "plan", "driver_plan")
"""Kinds of records that are about the whole run, not about one host."""

KEY: Final = "rackserve_record"
"""Key of a task's result that goes into the record: a mapping with `kind`, or a list of them."""


@dataclass
class HeldLock:
    """A lock that this run has taken: where it lies on the host, and the history as it was then."""

    folder: str
    head: Mapping[str, Any]


@dataclass
class PresentRun:
    """A run, as far as it has come."""

    holder: dict[str, Any]
    limit: str | None = None
    # The inventories' paths, which stay on the controller.
    sites: list[str] = field(default_factory=list)
    locks: dict[str, HeldLock] = field(default_factory=dict)
    # Hosts whose lock may be this run's, with its folder if that is known: the answer did not come, or has not yet.
    asked: dict[str, str | None] = field(default_factory=dict)
    # Hosts whose lock was this run's until another one broke it: they are not locked again.
    lost: set[str] = field(default_factory=set)
    records: list[dict[str, Any]] = field(default_factory=list)
    changed: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unreachable: list[str] = field(default_factory=list)
    lines: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.holder["run"])

    def take_result(self, host: str, task: str, result: Mapping[str, Any]) -> None:
        """Keep what a task's result says about locks, changes and the record; results that no_log hides say nothing."""
        if "censored" in result:
            self.changed[host] = self.changed.get(host, 0) + bool(result.get("changed"))
            return
        for one in (result, *(item for item in result.get("results", []) if isinstance(item, dict))):
            lock = one.get("lock")
            if isinstance(lock, dict) and one.get("rackserve_run") == self.id:
                self.take_lock(lock)
            found = one.get(KEY, [])
            for record in found if isinstance(found, list) else [found]:
                if isinstance(record, dict) and "censored" not in one:
                    self._take_record(host, task, record)
        if result.get("changed"):
            self.changed[host] = self.changed.get(host, 0) + 1

    def _take_record(self, host: str, task: str, record: Mapping[str, Any]) -> None:
        kept = {"task": task, **record}
        if record.get("kind") not in SHARED:
            kept = {"host": host, **kept}
        elif kept in self.records:  # every host says it
            return
        self.records.append(kept)

    def take_lock(self, lock: Mapping[str, Any]) -> None:
        """Keep that a host's lock was taken, or was lost to another run."""
        name, folder = str(lock["host"]), str(lock["folder"])
        self.asked.pop(name, None)
        if not lock["mine"]:
            if self.locks.pop(name, None):
                self.lost.add(name)
        elif name not in self.locks:
            self.locks[name] = HeldLock(folder, dict(lock["head"]))

    def has_changed(self) -> bool:
        """Return whether anything is to be remembered."""
        return bool(self.changed) or any(record.get("kind") not in SHARED for record in self.records)

    def entry(self, outcome: str) -> dict[str, Any]:
        """Return the record of the whole run; `outcome` is ok, failed or interrupted."""
        return {
            "run": self.id,
            "holder": {key: self.holder[key] for key in ("user", "host", "command", "inventory", "key")},
            "rackserve": __version__,
            "limit": self.limit,
            "since": self.holder["since"],
            "ended": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "outcome": outcome,
            "hosts": sorted({*self.locks, *self.changed}),
            "changed": dict(sorted(self.changed.items())),
            "failed": dict(sorted(self.failed.items())),
            "unreachable": sorted(set(self.unreachable)),
            "records": self.records,
        }

    def sign_lines(self, outcome: str) -> None:
        """Make the line of each locked host that something happened to: its part of the record, chained to the last."""
        whole = self.entry(outcome)
        for host, lock in self.locks.items():
            records = [record for record in self.records if record.get("host") == host]
            if not (records or host in self.changed or host in self.failed):
                continue
            chain = {"name": host, "n": int(lock.head["count"]) + 1, "previous": lock.head["digest"]}
            shared = [record for record in self.records if record.get("kind") in SHARED]
            part = {
                **whole,
                "records": [*shared, *records],
                "changed": {host: self.changed.get(host, 0)},
                "chain": chain,
            }
            part["failed"] = {name: task for name, task in self.failed.items() if name == host}
            self.lines[host] = signed_line(part)


_present: list[PresentRun] = []


def begin(run: PresentRun) -> None:
    """Make a run the one of this process."""
    _present[:] = [run]


def present() -> PresentRun | None:
    """Return the run of this process, or None where the callback `record_run` is not loaded."""
    return _present[0] if _present else None
