"""Records of runs: written on the controller, read from there and from the hosts, merged and verified."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rackserve._files import write_text
from rackserve._paths import state_dir
from rackserve.history._sign import canonical, signed_line, signer_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

RECORD: Final = "record.json"


@dataclass
class Run:
    """One run, of one source or several: its entry, what is wrong with it, and by which key it was signed."""

    entry: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.entry.get("run", ""))


def write_record(folder: Path, entry: dict[str, Any]) -> None:
    """Write the signed record of a run into its folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_text(folder / RECORD, signed_line(entry) + "\n")


def controller_lines() -> list[str]:
    """Return the records that this controller keeps, oldest first."""
    found = sorted((state_dir() / "runs").glob(f"*/{RECORD}"))
    return [path.read_text(encoding="utf-8").strip() for path in found]


def site_lines(inventory: Path, hosts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return this controller's records of one site: of its inventory, or of a run that its hosts have a line of."""
    known = {_entry_of(line).get("run") for lines in hosts.values() for line in lines}
    entries = ((line, _entry_of(line)) for line in controller_lines())
    return [line for line, entry in entries if str(inventory) in entry.get("sites", ()) or entry.get("run") in known]


def _entry_of(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line)["entry"])
    except (ValueError, KeyError, TypeError):
        return {}


def digest_of(line: str) -> str:
    """Return the sha256 of a line, by which the next one names it."""
    return hashlib.sha256(line.encode()).hexdigest()


def merge(controller: Sequence[str], hosts: Mapping[str, Sequence[str]], *, verify: bool) -> list[Run]:
    """Return every run that is known, oldest first.

    Args:
        controller: the records of this controller.
        hosts: the lines of each host's history, oldest first; only hosts that were read.
        verify: compare signatures, chains, and both sources with each other.
    """
    runs: dict[str, Run] = {}
    for line in controller:
        _add(runs, line, "this controller", verify=verify)
    for host, lines in hosts.items():
        previous = ""
        for number, line in enumerate(lines, 1):
            entry = _add(runs, line, host, verify=verify)
            chain = entry.get("chain", {})
            if verify and (chain.get("n"), chain.get("previous"), chain.get("name")) != (number, previous, host):
                said = f"{host}: line {number} does not follow the line before it: lines were removed, added or moved"
                runs[str(entry.get("run", ""))].problems.append(said)
            previous = digest_of(line)
    if verify:
        _compare(runs, hosts)
    return sorted(runs.values(), key=lambda run: (str(run.entry.get("since", "")), run.id))


def _add(runs: dict[str, Run], line: str, source: str, *, verify: bool) -> dict[str, Any]:
    try:
        found = json.loads(line)
        entry, signature = dict(found["entry"]), str(found["signature"])
        run = str(entry["run"])
    except (ValueError, KeyError, TypeError):
        entry, signature, run = {"run": "unreadable"}, "", "unreadable"
    known = runs.setdefault(run, Run(entry))
    if known.entry is not entry and "chain" in known.entry:
        known.entry = entry if "chain" not in entry else _joined(known.entry, entry)
    if verify:
        key = signer_of(entry, signature) if signature else None
        if key is None:
            known.problems.append(f"{source}: the signature is not one of this record; it was altered")
        else:
            known.keys.add(key)
            said = entry.get("holder", {}).get("key")
            if key != said:
                known.problems.append(f"{source}: it was signed by {key}, and names the key {said}")
    return entry


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return one entry of two hosts' parts of a run."""
    records = list({canonical(record): record for record in [*one["records"], *other["records"]]}.values())
    mappings = {key: {**one[key], **other[key]} for key in ("changed", "failed")}
    return {**one, **mappings, "records": records}


def _compare(runs: Mapping[str, Run], hosts: Mapping[str, Sequence[str]]) -> None:
    stored = {host: {digest_of(line) for line in lines} for host, lines in hosts.items()}
    for run in runs.values():
        for host, digest in run.entry.get("stored", {}).items():
            if host in stored and digest not in stored[host]:
                run.problems.append(f"{host}: the line of this run is missing or altered in the host's history")


def selected(runs: Iterable[Run], hosts: Sequence[str] | None) -> list[Run]:
    """Return the runs that changed something on any of these hosts; all of them for None."""
    return [
        run
        for run in runs
        if hosts is None or set(hosts) & {*run.entry.get("changed", {}), *run.entry.get("hosts", [])}
    ]
