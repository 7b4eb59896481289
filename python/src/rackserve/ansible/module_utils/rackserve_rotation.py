"""Which instances an edge sends requests to: marks, weights and upstreams. Standard library only, Python 3.9 and newer.

A mark takes one instance out of rotation or leaves it a share of its traffic; an operator and a rollout have one each.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Table = Mapping[str, Any]

FULL = 100
TIME = "%Y-%m-%dT%H:%M:%SZ"
OPERATOR = "operator"
ROLLOUT = "rollout"
# The time after which a connection that still carries requests is closed, so that engines behind an entry whose target
# has changed lose the edge's connections within seconds. nginx closes one at the end of the request during which its
# time is up (keepalive_time, nginx 1.19.10), so a request may begin keepalive_timeout later than that.
KEEPALIVE_SECONDS = 5
# Shorter than vLLM's own limit of 5 s: a connection that vLLM closes first would fail a request.
IDLE_SECONDS = 4
_WRITTEN = "# Written by the module edge_rotation; the next change of the rotation replaces what is edited here."
_MARK = {"label": str, "by": str, "run": str, "weight": int, "since": str}


class RotationError(ValueError):
    """A change that is refused, or a state that cannot be read; its text is one sentence for an operator."""


def parse_marks(text: str, path: str) -> list[dict[str, Any]]:
    """Return the marks of a state file, `{"marks": [{label, by, run, weight, since}]}`; an empty text has none.

    Raises:
        RotationError: the text is anything else.
    """
    if not text.strip():
        return []
    try:
        marks = [{key: kind(mark[key]) for key, kind in _MARK.items()} for mark in json.loads(text)["marks"]]
    except (ValueError, TypeError, KeyError) as wrong:
        raise RotationError(
            f"{path} is not readable ({type(wrong).__name__}: {wrong}); correct it, or delete it to have every "
            "instance in rotation"
        ) from None
    if wrong_ones := [
        mark for mark in marks if not 0 <= mark["weight"] < FULL or mark["by"] not in (OPERATOR, ROLLOUT)
    ]:
        raise RotationError(f"{path} has the mark {json.dumps(wrong_ones[0])}; correct it or delete the mark")
    return marks


def dump_marks(marks: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of a state file."""
    return json.dumps({"marks": list(marks)}, indent=1) + "\n"


def weights_of(table: Table, marks: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the weight of every instance behind the edge by label: 100, or the least of its marks."""
    weights = dict.fromkeys(sorted(table["servers"]), FULL)
    for mark in marks:
        if mark["label"] in weights:
            weights[mark["label"]] = min(weights[mark["label"]], mark["weight"])
    return weights


def names_of(table: Table) -> dict[str, list[str]]:
    """Return the names that the edge routes to every instance behind it, by label."""
    groups = table["groups"].values()
    return {
        label: sorted({name for group in groups if label in group["servers"] for name in group["models"]})
        for label in sorted(table["servers"])
    }


def deciding(marks: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, by label, the mark that decides what an instance gets; of two equal ones that of the operator."""
    ordered = sorted(marks, key=lambda mark: (mark["weight"], mark["by"]), reverse=True)
    return {mark["label"]: dict(mark) for mark in ordered}


def seconds_since(since: str, now: dt.datetime) -> float:
    """Return how old a mark is.

    Raises:
        RotationError: its time is none.
    """
    try:
        began = dt.datetime.strptime(since, TIME).replace(tzinfo=dt.timezone.utc)  # noqa: UP017
    except ValueError:
        raise RotationError(
            f"a mark of the rotation has the time {since!r}; write it as 2027-01-31T12:00:00Z"
        ) from None
    return round(max(0.0, (now - began).total_seconds()), 1)


def labels_of(table: Table, names: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the labels that are meant by hosts, or by labels as `gpu1:chat`, and the names that mean nothing here."""
    meant = {
        name: [label for label in sorted(table["servers"]) if name in (label, label.rpartition(":")[0])]
        for name in names
    }
    return meant, [name for name, labels in meant.items() if not labels]


def marks_after(
    table: Table,
    marks: Iterable[Mapping[str, Any]],
    wanted: Mapping[str, int],
    *,
    by: str,
    run: str,
    now: str,
    force: bool = False,
) -> list[dict[str, Any]]:
    """Return the marks after a change; those of instances that are no longer behind the edge are dropped.

    Args:
        table: what the inventory says of `groups` and `servers`, see rackserve.edge.plan_of.
        marks: those before.
        wanted: weight, 0 to 100, by host or label that the edge knows; see `labels_of`.
        by: whose marks are set and removed, `operator` or `rollout`. The other's stay.
        run: of a rollout.
        now: the time that new marks get.
        force: take out even the last instance of a model; have an operator remove a rollout's marks too.

    Raises:
        RotationError: a wrong weight, a label with two weights, the last instance of a model, or a rollout's mark that
            an operator's change would have to remove.
    """
    before = [dict(mark) for mark in marks if mark["label"] in table["servers"]]
    weights = _weight_by_label(table, wanted)
    found = {(mark["label"], mark["by"]): mark for mark in before}
    for label, weight in weights.items():
        of_rollout = found.get((label, ROLLOUT))
        if by == OPERATOR and of_rollout and weight > of_rollout["weight"]:
            if not force:
                raise RotationError(_kept(of_rollout))
            del found[label, ROLLOUT]
        mark = {"label": label, "by": by, "run": run, "weight": weight, "since": now}
        if weight == FULL:
            found.pop((label, by), None)
        elif not _same(found.get((label, by)), mark):
            found[label, by] = mark
    after = [found[key] for key in sorted(found)]
    if not force:
        _refuse_last(table, weights_of(table, before), weights_of(table, after))
    return after


def _weight_by_label(table: Table, wanted: Mapping[str, int]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for name, labels in labels_of(table, wanted)[0].items():
        weight = wanted[name]
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= FULL:
            raise RotationError(f"the weight of {name} is {weight!r}; set it to a number from 0 (out) to 100 (full)")
        for label in labels:
            if weights.setdefault(label, weight) != weight:
                raise RotationError(f"{label}: to be drained and undrained at once; name it in one of the two")
    return weights


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    return one is not None and all(one[key] == other[key] for key in ("weight", "run"))


def _kept(mark: Mapping[str, Any]) -> str:
    run = f" {mark['run']}" if mark["run"] else ""
    return (
        f"the rollout{run} keeps {mark['label']} at {mark['weight']} % of its requests since {mark['since']}; let it "
        "end or run it again, or take the instance back anyway with --force (nginx_drain_force: true)"
    )


def _refuse_last(table: Table, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    out = [label for label, weight in after.items() if weight == 0 and before[label] > 0]
    lost = sorted(
        model
        for group in table["groups"].values()
        if any(label in out for label in group["servers"]) and not any(after[label] for label in group["servers"])
        for model in group["models"]
    )
    if lost:
        raise RotationError(
            f"without {', '.join(out)} no instance would serve {', '.join(lost)}; "
            "undrain another one first, or drain them anyway with --force (nginx_drain_force: true)"
        )


def upstreams_of(table: Table, marks: Iterable[Mapping[str, Any]]) -> str:
    """Return the text that nginx.conf includes; its second line is JSON for the Lua code.

    Each group is an upstream of its instances in full rotation. Those with a share are in a second one, GROUP_share, to
    which the Lua code sends exactly their share: by `weight`, least_conn would give an instance with a small one every
    request that comes while it has none open. GROUP_affine is the ring of affinity. Each instance is also an upstream
    of its own, in every configuration: a worker from before a reload may still send requests by it.
    """
    weights = weights_of(table, marks)
    live: dict[str, Any] = {"groups": {}, "servers": {}}
    blocks: list[str] = []
    for name, group in sorted(table["groups"].items()):
        full = [label for label in group["servers"] if weights[label] == FULL]
        part = [label for label in group["servers"] if 0 < weights[label] < FULL]
        out = [label for label in group["servers"] if weights[label] == 0]
        total = sum(weights[label] for label in full + part)
        share = sum(weights[label] for label in part) / total if total else 0
        affine = group["affine"] and len(full) > 1
        live["groups"][name] = {"servers": group["servers"], "affine": affine, "share": share}
        spare = " backup" if full or out else ""
        members = {**dict.fromkeys(full, ""), **dict.fromkeys(part, spare), **dict.fromkeys(out, " down")}
        blocks += [f"\n# {', '.join(group['models'])}", *_upstream(table, name, members, "least_conn")]
        if part:
            of_share = {**{label: f" weight={weights[label]}" for label in part}, **dict.fromkeys(full, " backup")}
            blocks += _upstream(table, f"{name}_share", of_share)
        if affine:
            ring = dict.fromkeys(full, "")
            blocks += _upstream(table, f"{name}_affine", ring, "hash $rackserve_affinity consistent")
    for label, server in sorted(table["servers"].items()):
        live["servers"][label] = {"upstream": server["upstream"], "weight": weights[label]}
        blocks += _upstream(table, server["upstream"], {label: ""})
    text = "\n".join(blocks)
    live["digest"] = hashlib.sha256(json.dumps([table, text], sort_keys=True).encode()).hexdigest()[:16]
    return f"{_WRITTEN}\n# {json.dumps(live, sort_keys=True)}\n{text}\n"


def digest_of(upstreams: str) -> str:
    """Return the digest that workers with these upstreams and their table answer at /edge."""
    found = re.search(r'^# \{.*"digest": "([0-9a-f]{16})"', upstreams, re.MULTILINE)
    return found.group(1) if found else ""


def _upstream(table: Table, name: str, members: Mapping[str, str], method: str = "") -> list[str]:
    return [
        f"upstream {name} {{",
        f"    zone {name} 64k;",
        *([f"    {method};"] if method else []),
        *(
            line
            for label, how in members.items()
            for line in (
                f"    # {label}",
                f"    server {table['servers'][label]['address']} max_fails=2 fail_timeout=10s{how};",
            )
        ),
        "    keepalive 32;",
        f"    keepalive_time {KEEPALIVE_SECONDS}s;",
        f"    keepalive_timeout {IDLE_SECONDS}s;",
        "}",
    ]
