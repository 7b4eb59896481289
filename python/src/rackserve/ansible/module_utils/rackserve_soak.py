# Apache License 2.0 (see LICENSE)
"""Did a new engine fail real requests during its soak? Pure functions over what edges and Prometheus say.

Runs on the hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple  # noqa: UP035 - Python 3.9 runs this

Gate = Dict[str, Any]  # noqa: UP006 - as of rackserve_gates

REQUESTS = "rackserve_edge_upstream_requests_total"
BROKEN = "rackserve_edge_upstream_broken_answers_total"
# A difference this rare by chance alone is none.
CHANCE = 0.05
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
# Labels by which alerts name what they are about.
_NAMES = ("host", "instance", "vllm_instance", "upstream", "nodename")
Counts = Dict[str, Dict[str, float]]  # noqa: UP006 - by instance: requests, errors, broken


def _gate(name: str, instance: str, ok: Optional[bool], text: str, **figures: Any) -> Gate:  # noqa: ANN401, FBT001, UP045
    # Not imported: a filter on the controller uses this file, and finds no other one of Ansible's utilities.
    return {"name": name, "ok": ok, "line": f"{instance}: {name}: {text}", "figures": figures}


def counts_of(page: str) -> Counts:
    """Return what an edge has counted of each instance by its label: `requests`, `errors` and `broken` answers.

    An error is a 5xx of the instance or in its place: 502 where it closed or refused the connection, 504 where it was
    silent. `500_grammar`, which a client can cause, is none.
    """
    found: Counts = {}
    for line in page.splitlines():
        name, _, rest = line.partition("{")
        if name not in (REQUESTS, BROKEN):
            continue
        labels, _, value = rest.rpartition("} ")
        of = {key: text.replace('\\"', '"').replace("\\\\", "\\") for key, text in _LABEL.findall(labels)}
        row = found.setdefault(of.get("upstream", ""), {"requests": 0.0, "errors": 0.0, "broken": 0.0})
        with contextlib.suppress(ValueError):
            number = float(value)
            if name == BROKEN:
                row["broken"] += number
            else:
                row["requests"] += number
                row["errors"] += number if re.fullmatch(r"5\d\d", of.get("status", "")) else 0.0
    return found


def grown(before: Mapping[str, Counts], after: Mapping[str, Counts]) -> Counts:
    """Return what all edges counted meanwhile, by instance.

    Args:
        before: as `counts_of`, by edge.
        after: the same later. Counters that fell are those of an nginx that was started meanwhile.
    """
    found: Counts = {}
    for edge in sorted(before.keys() & after.keys()):
        for label, row in after[edge].items():
            was = before[edge].get(label, {})
            restarted = any(value < was.get(key, 0.0) for key, value in row.items())
            total = found.setdefault(label, {"requests": 0.0, "errors": 0.0, "broken": 0.0})
            for key, value in row.items():
                total[key] += value if restarted else value - was.get(key, 0.0)
    return found


def by_chance(failed: int, requests: int, others_failed: int, others: int) -> float:
    """Return how probable it is that so many or more of all failures fall on these requests (Fisher's exact test)."""
    total, failures = requests + others, failed + others_failed
    every = math.comb(total, failures)
    ways = (
        math.comb(requests, n) * math.comb(others, failures - n) for n in range(failed, min(failures, requests) + 1)
    )
    return sum(ways) / every


def alerts_of(text: str) -> Optional[List[Dict[str, Any]]]:  # noqa: UP006, UP045
    """Return the alerts in an answer of Prometheus; None where it is no such answer."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return [dict(alert) for alert in json.loads(text)["data"]["alerts"]]
    return None


def new_alerts(
    before: Optional[Sequence[Mapping[str, Any]]],  # noqa: UP045
    after: Optional[Sequence[Mapping[str, Any]]],  # noqa: UP045
    names: Sequence[str],
) -> List[str]:  # noqa: UP006
    """Return the alerts that fire now, did not before, and name one of these hosts, addresses or instances."""
    fired = {_key(alert) for alert in before or () if alert.get("state") == "firing"}
    found = set()
    for alert in after or ():
        labels = alert.get("labels") or {}
        # `instance` of a scraped target is host:port.
        said = {
            part for key in _NAMES for part in (labels.get(key, ""), labels.get(key, "").rpartition(":")[0]) if part
        }
        if alert.get("state") == "firing" and said & set(names) and _key(alert) not in fired:
            found.add(str(labels.get("alertname", "an alert without a name")))
    return sorted(found)


def _key(alert: Mapping[str, Any]) -> Tuple[Tuple[str, str], ...]:  # noqa: UP006
    return tuple(sorted((alert.get("labels") or {}).items()))


def judge_soak(
    instance: str,
    label: str,
    peers: Sequence[str],
    counts: Counts,
    *,
    seconds: float,
    most_percent: float,
) -> Gate:
    """Requests fail at a new engine no more often than at the others of its model.

    Args:
        instance: the instance's label in the line.
        label: its label at the edges.
        peers: labels of the other instances of the model.
        counts: as `grown`.
        seconds: how long was counted.
        most_percent: failed requests that are allowed in any case.
    """
    nothing = {"requests": 0.0, "errors": 0.0, "broken": 0.0}
    own = counts.get(label, nothing)
    rows = [counts.get(peer, nothing) for peer in peers]
    requests, failed = round(own["requests"]), min(round(own["errors"] + own["broken"]), round(own["requests"]))
    others = round(sum(row["requests"] for row in rows))
    others_failed = min(round(sum(row["errors"] + row["broken"] for row in rows)), others)
    figures = {
        "seconds": round(seconds, 1),
        "requests": requests,
        "errors": round(own["errors"]),
        "broken": round(own["broken"]),
        "others": others,
        "others_failed": others_failed,
    }
    if not requests:
        return _gate("soak", instance, None, f"not compared: no request came in {seconds:.0f} s", **figures)
    text = (
        f"{failed} of {requests} requests failed in {seconds:.0f} s ({figures['errors']} errors, {figures['broken']} "
        f"broken answers), and {others_failed} of {others} at the other instances"
    )
    share = 100.0 * failed / requests
    chance = by_chance(failed, requests, others_failed, others) if others else 0.0
    figures["chance"] = round(chance, 4)
    if share <= most_percent:
        return _gate("soak", instance, True, f"{text}; limit {most_percent:g} %", **figures)
    if others and chance >= CHANCE:
        return _gate("soak", instance, True, f"{text}: as often as there, or too few to tell", **figures)
    return _gate("soak", instance, False, f"{text}; limit {most_percent:g} %", **figures)


def judge_alerts(
    instance: str,
    before: Optional[Sequence[Mapping[str, Any]]],  # noqa: UP045
    after: Optional[Sequence[Mapping[str, Any]]],  # noqa: UP045
    names: Sequence[str],
) -> Gate:
    """No alert about the host or the instance fires that did not before.

    Args:
        instance: the instance's label.
        before: Prometheus's alerts before the host was changed; None where it was not asked.
        after: those now; None where there is no Prometheus, or it gave no answer.
        names: host, addresses and names that alerts may call it by.
    """
    if after is None:
        return _gate("alerts", instance, None, "not compared: no Prometheus of the site answered")
    found = new_alerts(before, after, names)
    if found:
        return _gate("alerts", instance, False, f"fires since the change: {', '.join(found)}", alerts=found)
    firing = sum(alert.get("state") == "firing" for alert in after)
    return _gate("alerts", instance, True, f"none of {firing} firing alerts is new and about it", alerts=[])


def soak_gates(
    soak: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
) -> List[Gate]:  # noqa: UP006
    """Return the gates `soak` and `alerts` of one instance.

    Args:
        soak: `instance` and `label` (its label at the edges), `peers` (labels of the other instances of the model),
            `most_percent`, and `names`, by which alerts may call the host and the instance.
        before: what the module edge_soak returned on each edge and on the monitoring host, each with its `host`.
        after: the same later, in any order.
    """
    old, new = ({one["host"]: one for one in rows} for rows in (before, after))
    seconds = max((one["time"] - old[host]["time"] for host, one in new.items() if host in old), default=0.0)
    counts = grown(*({host: one["counts"] for host, one in rows.items()} for rows in (old, new)))
    was, now = (
        next((one["alerts"] for one in rows.values() if one["alerts"] is not None), None) for rows in (old, new)
    )
    label, peers = soak["label"], soak["peers"]
    return [
        judge_soak(soak["instance"], label, peers, counts, seconds=seconds, most_percent=float(soak["most_percent"])),
        judge_alerts(soak["instance"], was, now, soak["names"]),
    ]
