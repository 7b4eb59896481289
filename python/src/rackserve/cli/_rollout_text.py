"""A rollout in words: its plan as a table, and a line for each record that a run gives on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackserve.run import RunEvent

_HOW = {
    "started": "starts; served nothing",
    "beside": "new engine beside the old one",
    "drained": "drained at every edge",
    "held": "drained; the edges hold requests",
    "proved": "gates, then back into rotation",
    "removed": "drained and removed",
}
_MINUTE = 60


def records_of(event: RunEvent) -> Iterator[Mapping[str, Any]]:
    """Yield the records that a task's result has, those of a loop's items too."""
    items = event.data.get("results")
    for data in [event.data, *(items if isinstance(items, list) else [])]:
        found = data.get("rackserve_record") if isinstance(data, dict) else None
        yield from (record for record in (found if isinstance(found, list) else [found]) if isinstance(record, dict))


def record_line(record: Mapping[str, Any]) -> str:
    """Return the line of a record; nothing of one that has no line for people."""
    kind = record.get("kind")
    if kind == "gate":
        where = ":".join(str(record[key]) for key in ("host", "instance") if record.get(key))
        verdict = "passed" if record.get("ok") else "FAILED"
        return str(record.get("line") or f"{where} {record.get('gate')}: {verdict}; {record.get('detail', '')}")
    if kind == "batch":
        return f"batch {record['number']} of {record['of']}: {', '.join(record['hosts'])}"
    if kind == "pause":
        return f"paused after batch {record['after']}; go on with: rackserve rollout --resume"
    return ""


def plan_rows(plan: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of a plan, under `PLAN_HEAD`."""
    return [
        (
            "first" if row["batch"] == 0 else str(row["batch"]),
            row["host"],
            row["instance"],
            _HOW[row["how"]],
            ", ".join(row["restarted"]) or "-",
            "not known" if row["seconds"] is None else about(row["seconds"]),
            "nothing" if row["lossless"] else "REQUESTS",
            "; ".join(row["what"]),
        )
        for row in plan["rows"]
    ]


PLAN_HEAD = ("BATCH", "HOST", "INSTANCE", "HOW", "RESTARTS", "TAKES", "LOSES", "WHAT")


def plan_notes(plan: Mapping[str, Any]) -> list[str]:
    """Return what else a plan says, a sentence each: its course, problems, hosts that it leaves alone."""
    found = []
    if plan["take_back"]:
        found.append(f"back into rotation at once, left by a run that died: {', '.join(plan['take_back'])}")
    if plan["edges_before"]:
        found.append("the edges are configured before the first batch, and once more at the end")
    if plan["back_after_edges"]:
        late = ", ".join(plan["back_after_edges"])
        found.append(f"in rotation only when the edges know the new address, at the end: {late}")
    if plan["pause_after"] is not None:
        found.append(f"pauses after batch {plan['pause_after']}")
    found += plan["notes"]
    found += [f"loses requests: {problem['why']}; {problem['fix']}" for problem in plan["problems"]]
    if plan["problems"] and plan["consent"]:
        found.append(f"accepted: {plan['consent']}")
    if plan["unchanged"]:
        found.append(f"unchanged: {', '.join(plan['unchanged'])}")
    if plan["left"]:
        found.append(f"not in this run: {', '.join(plan['left'])}")
    return [*found, _how_long(plan)]


def _how_long(plan: Mapping[str, Any]) -> str:
    if not plan["rows"]:
        return "no host changes"
    batches: Sequence[Any] = plan["serial"]
    text = f"{len(batches)} batches" if len(batches) != 1 else "1 batch"
    text += " after the hosts that serve nothing" if plan["first"] else ""
    if plan["unknown"]:
        unknown = ", ".join(plan["unknown"])
        return f"{text}; how long is not known, because no start of {unknown} is on record; the rest takes " + about(
            plan["seconds"]
        )
    return f"{text}, {about(plan['seconds'])} at most"


def about(seconds: float) -> str:
    """Return a time as people say it."""
    return f"about {seconds:.0f} s" if seconds < 2 * _MINUTE else f"about {seconds / _MINUTE:.0f} min"
