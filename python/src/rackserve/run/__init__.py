"""Runs of Ansible: the fleet of an inventory, the one importer of ansible-runner, events, records and changes."""

from rackserve.run._ansible import run_playbook
from rackserve.run._changes import ChangeLog, TaskChange, by_role
from rackserve.run._events import (
    EventKind,
    HostStats,
    RunEvent,
    RunResult,
    TaskFailure,
    failure_message,
    unreachable_message,
)
from rackserve.run._fleet import Fleet, FleetHost, load_fleet, parse_inventory, resolve_inventory
from rackserve.run._locks import break_locks, read_locks
from rackserve.run._record import new_record_dir, run_lock
from rackserve.run._rollouts import (
    KeptRollout,
    ask_for_pause,
    keep_rollout,
    last_rollout,
    pause_file,
    rollout_variables,
)
from rackserve.run._site import collect_from_fleet, failure_messages, inspect_fleet, run_edges, run_site

__all__ = [
    "ChangeLog",
    "EventKind",
    "Fleet",
    "FleetHost",
    "HostStats",
    "KeptRollout",
    "RunEvent",
    "RunResult",
    "TaskChange",
    "TaskFailure",
    "ask_for_pause",
    "break_locks",
    "by_role",
    "collect_from_fleet",
    "failure_message",
    "failure_messages",
    "inspect_fleet",
    "keep_rollout",
    "last_rollout",
    "load_fleet",
    "new_record_dir",
    "parse_inventory",
    "pause_file",
    "read_locks",
    "resolve_inventory",
    "rollout_variables",
    "run_edges",
    "run_lock",
    "run_playbook",
    "run_site",
    "unreachable_message",
]
