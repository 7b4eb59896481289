"""Changes of a run: tasks by role and hosts, in the order in which they ran. No task's result is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class TaskChange:
    """A task that changed something, and on which hosts."""

    role: str
    task: str
    hosts: tuple[str, ...]


@dataclass
class ChangeLog:
    """Collects changes."""

    _found: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def add(self, role: str, task: str, host: str) -> None:
        """Record that a task changed a host; Ansible writes the role's name before the task's."""
        key = (role or "-", task.removeprefix(f"{role} : ") or "-")
        self._found.setdefault(key, set()).add(host)

    @property
    def changes(self) -> tuple[TaskChange, ...]:
        """The changes so far."""
        return tuple(TaskChange(role, task, tuple(sorted(hosts))) for (role, task), hosts in self._found.items())


def by_role(changes: Iterable[TaskChange]) -> Mapping[str, Mapping[str, int]]:
    """Return how many tasks of a role changed a host: role -> host -> count."""
    found: dict[str, dict[str, int]] = {}
    for change in changes:
        counts = found.setdefault(change.role, {})
        for host in change.hosts:
            counts[host] = counts.get(host, 0) + 1
    return found
