"""Hosts that leave a site: whether they may, and what edges and operator are left with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve._schema import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_SERVING: Final = "vllm_hosts"
_OTHER_WORK: Final = ("edge_hosts", "monitoring_hosts")
_INVENTORY_FILES: Final = frozenset({"", ".yml", ".yaml", ".ini", ".json"})
_LINES: Final = 12


@dataclass(frozen=True)
class Retirement:
    """What retires.

    Attributes:
        run: ID of the run, for the marks at the edges; with `held` and `consent` as in a rollout's plan.
        held: none.
        refusal: why nothing may be changed, in one message; empty where it may.
        losses: what requests lose; with a consent they refuse nothing.
        names: by edge, the names that it routes to each instance that stays.
    """

    run: str
    held: list[str]
    consent: str
    refusal: str
    losses: list[str]
    names: dict[str, dict[str, list[str]]]


def retire_problems(retired: Sequence[str], groups: Mapping[str, Sequence[str]], limit: str = "") -> list[str]:
    """Return why hosts cannot be retired, whatever they serve.

    Args:
        retired: names of hosts.
        groups: hosts by group, of the inventory.
        limit: Ansible's `--limit`.
    """
    serving, known = groups.get(_SERVING, ()), ", ".join(groups.get(_SERVING, ()))
    if not retired or isinstance(retired, str):
        return [f"stack_retire_hosts is {retired!r}; set it to a list of hosts, such as [gpu3]"]
    found = [
        f"{host!r} is no vLLM host of the inventory; set stack_retire_hosts to some of {known}"
        for host in retired
        if host not in serving
    ]
    found += [
        f"{host} is in {group} too; take it out of that group and run site.yml first"
        for group in _OTHER_WORK
        for host in retired
        if host in groups.get(group, ())
    ]
    if not found and not set(serving) - set(retired):
        found.append(f"{known} is every vLLM host, and an edge needs one; take the edges out of service instead")
    if limit:
        found.append(f"--limit {limit} may leave out an edge or Prometheus; run it without --limit")
    return found


def retirement(
    retired: Sequence[str],
    edges: Mapping[str, Mapping[str, Any]],
    hostvars: Mapping[str, Mapping[str, Any]],
    *,
    run: str,
    consent: str = "",
    unreached: Sequence[str] = (),
    silent: Sequence[str] = (),
    wipe: bool = False,
) -> Retirement:
    """Return whether hosts may retire now.

    Args:
        retired: names of hosts.
        edges: what edge_rotation read, by edge.
        hostvars: variables by host: `__rollout_found` (of generation_facts) of vLLM hosts, `__rollout_backends`
            (`nginx_backends`) of edges.
        run: ID of this run.
        consent: the reason for which lost requests are accepted.
        unreached: edges that were not reached.
        silent: hosts of `retired` that did not answer.
        wipe: whether what the roles wrote on the hosts is to be removed.
    """
    places = {edge: _places(plain(hostvars[edge].get("__rollout_backends") or [])) for edge in edges}
    names = {
        edge: {label: list(routed) for label, routed in state["names"].items() if _host(label) not in retired}
        for edge, state in edges.items()
    }
    refused = [f"{host} does not answer, so it cannot be wiped; run it without --wipe" for host in silent if wipe]
    refused += [
        f"what serves on {host} cannot be read: {_found(host, hostvars).get('msg', 'nobody asked')}; mend that first"
        for host in retired
        if host not in silent and "instances" not in _found(host, hostvars)
    ]
    refused += [text for edge, state in edges.items() for text in _differs(edge, state, names[edge], places[edge])]
    losses = [text for edge, state in edges.items() for text in _losses(edge, state, names[edge], hostvars, retired)]
    hosts = ", ".join(retired)
    losses += [
        f"{edge} could not be reached and would go on sending requests to {hosts}; bring it back, or take it out of "
        "the group edge_hosts"
        for edge in unreached
    ]
    if alive := [host for host in retired if host not in silent] if not edges and not unreached else []:
        losses.append(f"no edge of the site is configured, so requests to {', '.join(alive)} fail when it stops")
    return Retirement(run, [], consent.strip(), _refusal(refused, [] if consent.strip() else losses), losses, names)


def _refusal(refused: Sequence[str], losses: Sequence[str]) -> str:
    if refused:
        return f"nothing was changed: {'; '.join(refused)}"
    if losses:
        return (
            f"nothing was changed, because requests would be lost: {'; '.join(losses)}; or accept the loss: "
            "rackserve retire --consent REASON, or stack_rollout_consent: REASON"
        )
    return ""


def _host(label: str) -> str:
    return label.rpartition(":")[0]


def _places(backends: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {f"{one['host']}:{one['instance']}": f"{one['address']}:{one['port']}" for one in backends}


def _differs(
    edge: str, state: Mapping[str, Any], names: Mapping[str, Sequence[str]], places: Mapping[str, str]
) -> Iterator[str]:
    """Yield what the edge would learn of the inventory besides: it is configured with what it knows, less the hosts."""
    for label in names:
        has, wanted = state["addresses"][label], places.get(label, "nowhere")
        if has != wanted:
            yield (
                f"{edge} has {label} at {has}, and the inventory {wanted}; run site.yml first, or take that change back"
            )
    if state["names"] and not names:
        yield f"{edge} would have no instance at all; let it send requests to another host first"


def _losses(
    edge: str,
    state: Mapping[str, Any],
    names: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    retired: Sequence[str],
) -> Iterator[str]:
    goes = {name for label, routed in state["names"].items() if label not in names for name in routed}
    stays = {
        name
        for label, routed in names.items()
        for name in set(routed) & _served(label, hostvars)
        if state["weights"].get(label)
    }
    if lost := sorted(goes - stays):
        yield (
            f"{', '.join(map(repr, lost))} would have no instance in rotation at {edge} without {', '.join(retired)}; "
            "bring another one into rotation first (rackserve undrain, or a new one)"
        )


def _served(label: str, hostvars: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the names that an instance serves now; none of a host that was not reached."""
    host, _, name = label.rpartition(":")
    one = _found(host, hostvars).get("instances", {}).get(name, {})
    return set(one["generation"].get("served_names", ())) if one.get("active") else set()


def _found(host: str, hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    own = hostvars[host] if host in hostvars else {}  # noqa: SIM401 - `get` of Ansible's hostvars never misses
    found: dict[str, Any] = plain(own.get("__rollout_found") or {})
    return found


def inventory_lines(inventory: Path, host: str) -> list[str]:
    """Return the places of an inventory that name a host, as `hosts.yml:7`, and the files of its own.

    Args:
        inventory: its folder or file.
        host: the host's name.
    """
    root = inventory if inventory.is_dir() else inventory.parent
    files = sorted(path for path in root.rglob("*") if path.suffix in _INVENTORY_FILES and path.is_file())
    word = re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w.-])")
    found = []
    for path in files:
        where = path.relative_to(root)
        if where.parts[0] == "host_vars" and host in (where.stem, *where.parts[1:2]):
            found.append(f"{where} (the file)")
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [f"{where}:{number}" for number, line in enumerate(lines, 1) if word.search(line.partition("#")[0])]
    return found[:_LINES]


def retired_record(
    host: str,
    inventory: Path,
    removed: Sequence[str],
    *,
    told: Sequence[str] = (),
    silent: bool = False,
    wiped: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what the run leaves of a host, for its record, with `text`, the sentences for the operator.

    Args:
        host: the host's name.
        inventory: its site's folder.
        removed: the instances that were removed.
        told: edges and monitoring hosts that have forgotten it.
        silent: whether it did not answer.
        wiped: what host_wipe returned; None where that was not asked.
    """
    lines = inventory_lines(inventory, host)
    text = [f"{host} retired; forgotten by {', '.join(told) or 'nobody, since no edge and no Prometheus runs'}"]
    if silent:
        text.append(
            f"{host} did not answer, so nothing was changed on it: if it comes back, its instances, keys and weights "
            "are there and serve whoever reaches it"
        )
    else:
        text.append(f"{host}: instances removed: {', '.join(removed) or 'it had none'}")
    if wiped is not None:
        text.append(
            f"{host}: {len(wiped['removed'])} folders and files removed, {wiped['bytes'] / 1e9:.1f} GB; that is no "
            "erasure, so overwrite or destroy its disks before it leaves your hands"
        )
        text += [f"{host}: {one['path']} was left, because {one['why']}" for one in wiped["left"]]
    where = ", ".join(lines) or "no line names it alone, so look for a range such as gpu[1:4]"
    text.append(
        f"now remove {host} from the inventory ({where}): while it is there, the next site.yml installs and starts it "
        "again and has the edges send requests to it"
    )
    return {
        "kind": "retire",
        "host": host,
        "forgotten_by": list(told),
        "silent": silent,
        "instances": list(removed),
        "wiped": {key: wiped[key] for key in ("removed", "bytes", "left")} if wiped is not None else None,
        "inventory": lines,
        "text": text,
    }
