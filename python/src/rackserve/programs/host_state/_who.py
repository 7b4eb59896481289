"""Who or what was at work when something changed, where the host can tell: apt's history, logins."""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import TYPE_CHECKING

from ._host import UnreadError

if TYPE_CHECKING:
    from ._host import Host

_SLACK_S = 5
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:?\d\d")


def who(host: Host, since: str) -> str:
    """Return what was at work at a time (ISO 8601), empty where nothing is known."""
    if not since:
        return ""
    at = dt.datetime.fromisoformat(since).timestamp()
    return _apt(host, at) or _logins(host, at)


def last_package_change(host: Host, package: str) -> str:
    """Return the time of dpkg's last work on a package, ISO 8601; empty where its log does not tell."""
    found = ""
    for name in ("/var/log/dpkg.log.1", "/var/log/dpkg.log"):
        for line in (host.text(name) or "").splitlines():
            cells = line.split()
            if len(cells) > 3 and package in (cell.partition(":")[0] for cell in cells[3:5]):  # noqa: PLR2004 - dpkg.log
                found = f"{cells[0]} {cells[1]}"
    try:
        local = time.mktime(time.strptime(found, "%Y-%m-%d %H:%M:%S")) if found else 0.0
    except ValueError:
        return ""
    return dt.datetime.fromtimestamp(local, dt.timezone.utc).isoformat(timespec="seconds") if local else ""


def _apt(host: Host, at: float) -> str:
    for block in (host.text("/var/log/apt/history.log") or "").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        try:
            begin, end = (
                time.mktime(time.strptime(fields[key], "%Y-%m-%d  %H:%M:%S")) for key in ("Start-Date", "End-Date")
            )
        except (KeyError, ValueError):
            continue
        if begin - _SLACK_S <= at <= end + _SLACK_S:
            asked = fields.get("Requested-By", "").partition(" ")[0]
            return f"apt ({fields.get('Commandline', 'unknown')}{f', asked by {asked}' if asked else ''})"
    return ""


def _logins(host: Host, at: float) -> str:
    try:
        lines = host.run("last", "--time-format", "iso", "--limit", "200").splitlines()
    except UnreadError:
        return ""
    found = []
    for line in lines:
        times = [dt.datetime.fromisoformat(one).timestamp() for one in _ISO.findall(line)]
        cells = line.split()
        if times and cells[0] != "reboot" and times[0] <= at <= (times[1] if len(times) > 1 else at):
            found.append(f"{cells[0]}{f' from {cells[2]}' if not _ISO.match(cells[2]) else ''}")
    return f"logged in then: {', '.join(sorted(set(found)))}" if found else ""
