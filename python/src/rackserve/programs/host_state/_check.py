"""The whole comparison of a host with its record, and the metrics of it."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

from ._carry import fingerprint, key_of
from ._compare import differences
from ._difference import KINDS, Difference
from ._record import RECORD, load, read_roles, read_unowned
from ._who import last_package_change, who

if TYPE_CHECKING:
    from ._host import Host

_CHECKED = "rackserve_drift_checked_timestamp_seconds"


def check(host: Host, path: str = RECORD) -> dict[str, Any]:
    """Compare a host with its record; change nothing.

    Returns:
        `written` (time of the record), `differences`, `prints` (of what was found, by `key_of`, for `new_record`),
        `unread` (reason by kind that could not be compared), `seconds`.

    Raises:
        RecordError: there is no record.
    """
    started = time.monotonic()
    record = load(host, path)
    declared = {role: entry["owned"] for role, entry in record["roles"].items()}
    found, unread = read_roles(host, declared, record["roles"])
    strangers = read_unowned(host, record["roles"])
    every = [_dated(host, one) for one in differences(host, record["roles"], found, strangers)]
    every.sort(key=lambda one: (KINDS.index(one.kind), one.what, one.attribute))
    listed = [one._asdict() for one in every]
    return {
        "written": record["written"],
        "differences": listed,
        "prints": {key_of(one): fingerprint(found, one) for one in listed},
        "unread": unread,
        "seconds": round(time.monotonic() - started, 3),
    }


def _dated(host: Host, one: Difference) -> Difference:
    if one.kind == "package" and not one.what.startswith("/"):
        one = one._replace(since=last_package_change(host, one.what))
    return one._replace(by=who(host, one.since))


def metrics(result: dict[str, Any], before: str, now: float) -> str:
    """Return the lines for the node exporter.

    Args:
        result: of `check`.
        before: the lines of the last time. Where a kind could not be compared, its time of the last check stays.
        now: seconds since the epoch.
    """
    counts = dict.fromkeys(KINDS, 0)
    for one in result["differences"]:
        counts[one["kind"]] += 1
    lines = [f'rackserve_drift_differences{{kind="{kind}"}} {count}' for kind, count in counts.items()]
    if not result["unread"]:
        return "\n".join([*lines, f"{_CHECKED} {now:.0f}", ""])
    kept = re.findall(rf"(?m)^{_CHECKED} .+$", before)
    return "\n".join([*lines, *kept, ""])


def write_metrics(target: str, result: dict[str, Any], now: float) -> None:
    """Replace a file of metrics by one rename."""
    before = ""
    try:
        with open(target, encoding="utf-8") as source:
            before = source.read()
    except OSError:
        pass
    with open(os.open(f"{target}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "w", encoding="utf-8") as draft:
        draft.write(metrics(result, before, now))
    os.replace(f"{target}.new", target)
