"""The locks and histories that hosts keep: read, and broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackserve._paths import project_root
from rackserve.run import _ansible
from rackserve.run._events import EventKind
from rackserve.run._record import new_record_dir, run_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rackserve.run._events import RunEvent, RunResult


def read_locks(
    inventory: Path, limit: str | None, *, on_event: Callable[[RunEvent], None]
) -> tuple[RunResult, dict[str, Mapping[str, Any]]]:
    """Read each host's lock and history: what the module `run_lock` returns, and `known` (see `history.Liveness`)."""
    found: dict[str, Mapping[str, Any]] = {}

    def take(event: RunEvent) -> None:
        if event.kind is EventKind.OK and "lines" in event.data:
            found[event.host] = event.data
        on_event(event)

    playbook = project_root() / "playbooks" / "read_locks.yml"
    record = new_record_dir(playbook)
    return _ansible.run_playbook(playbook, inventory, on_event=take, record_dir=record, limit=limit), found


def break_locks(
    inventory: Path,
    hosts: Sequence[str],
    runs: Sequence[str],
    reason: str,
    *,
    on_event: Callable[[RunEvent], None],
) -> RunResult:
    """Take over the locks that these runs hold, and give them back; the histories tell who did, whose and why."""
    playbook = project_root() / "playbooks" / "lock_hosts.yml"
    with run_lock(inventory):
        return _ansible.run_playbook(
            playbook,
            inventory,
            on_event=on_event,
            record_dir=new_record_dir(playbook),
            limit=",".join(hosts),
            variables={"stack_lock_break": list(runs), "stack_lock_reason": reason},
        )
