"""What a run says when another one holds a lock: one form, for hosts and for the controller."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from rackserve.history._holder import Liveness, liveness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def span(seconds: float) -> str:
    """Return a time as its largest whole unit: `3 h`."""
    size, unit = next(((size, unit) for size, unit in _SPANS if seconds >= size), _SPANS[-1])
    return f"{int(seconds // size)} {unit}"


def describe(holder: Mapping[str, Any]) -> str:
    """Return who holds a lock: user, controller, process, what it runs, and its id."""
    if "pid" not in holder:
        return "a run whose lock file cannot be read"
    run = f", run {holder['run']}" if holder.get("run") else ""
    where = f"{holder.get('command', '?')} on the inventory {holder.get('inventory', '?')}"
    return f"{holder.get('user', '?')} on {holder.get('host', '?')} (process {holder['pid']}, {where}{run})"


def refusal(names: Sequence[str], found: Mapping[str, Any], known: Liveness) -> str:
    """Return why a run cannot have a lock, and what to do.

    Args:
        names: the hosts, or the inventory, of this lock.
        found: as the module `run_lock` returns them: `holder`, `age_s`, `seen_s` and `busy`.
        known: what this machine knows about the holder's process.
    """
    holder = found["holder"]
    taken = dt.datetime.fromtimestamp(holder.get("taken", 0), dt.UTC).isoformat(timespec="seconds")
    held = (
        f"{', '.join(names)}: locked by {describe(holder)} since {holder.get('since', taken)} ({span(found['age_s'])})"
    )
    if known is Liveness.RUNNING:
        return f"{held}; it runs on this controller: wait for its end"
    seen = "a task is at work there now" if found.get("busy") else f"last seen {span(found['seen_s'])} ago"
    gone = ", and has ended" if known is Liveness.ENDED else ""
    return (
        f"{held}, {seen}{gone}; wait for its end, or, only if that run is dead, break its lock: "
        f"rackserve unlock {' '.join(names)} --reason TEXT (or -e stack_lock_break={holder['run']})"
    )


def refusals(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return all refusals of a run, one line for each holder; empty where every host was locked.

    Args:
        found: by host, what the action `run_lock` returned: `refused`, and `text` where no holder is the reason.
    """
    by_run: dict[str, list[str]] = {}
    lines: list[str] = []
    for host, one in found.items():
        if one.get("text"):
            lines.append(f"{host}: {one['text']}")
        elif one.get("refused"):
            by_run.setdefault(one["refused"]["holder"]["run"], []).append(host)
    for hosts in by_run.values():
        oldest = max((found[host]["refused"] for host in hosts), key=lambda one: float(one["age_s"]))
        lines.append(refusal(sorted(hosts), oldest, liveness(oldest["holder"])))
    return "\n".join(lines)
