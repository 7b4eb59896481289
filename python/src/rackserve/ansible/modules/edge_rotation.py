#!/usr/bin/python
"""Take instances out of an edge's rotation and back, or give them a share of their requests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_rotation
short_description: Change which instances an edge sends requests to
description:
  - Writes the rotation state of the edge and the upstreams that follow from it, has nginx test them, reloads it, and
    waits until every worker that takes connections has them. Without streams to wait for it takes a second or two.
  - An operator and a rollout have a mark of their own on each instance; the instance gets requests by the lesser one.
  - Where nginx refuses the result, the state from before is back and nothing has changed. In check mode nothing is
    written. A host without nginx is left unchanged.
options:
  set:
    description: >-
      Weight by host or by label such as gpu1:chat; 0 takes it out, 100 removes the mark, and 1 to 99 is that percentage
      of a full instance's requests. Empty only brings upstreams and workers in line with the state.
    type: dict
    default: {}
  by: {description: Whose marks are changed., type: str, choices: [operator, rollout], default: operator}
  run: {description: ID of the rollout., type: str, default: ""}
  wait: {description: Seconds to wait for the streams of instances that are out., type: int, default: 0}
  force:
    description: Take out even the last instance of a model; let an operator remove the mark of a rollout.
    type: bool
    default: false
  read: {description: Return the state and change nothing., type: bool, default: false}
  table:
    description: >-
      Write the upstreams of this table, beside it, without a reload; the role does so before nginx.conf names it.
    type: path
author: rackserve
"""
EXAMPLES = r"""
- name: Take an instance out of rotation
  edge_rotation: {set: {"gpu1:chat": 0}, by: rollout, run: "20270131-1200", wait: 320}
  delegate_to: edge1

- name: Give it five percent
  edge_rotation: {set: {"gpu1:chat": 5}, by: rollout, run: "20270131-1200"}
  delegate_to: edge1

- name: Read who is out of rotation
  edge_rotation: {read: true}
"""
RETURN = r"""
installed: {description: Whether nginx and its configuration are there., type: bool, returned: always}
running: {description: Whether nginx runs., type: bool, returned: always}
before: {description: "Marks before: label, by, run, weight, since (UTC).", type: list, returned: always}
after: {description: Marks afterwards., type: list, returned: always}
weights: {description: "Weight of every instance behind the edge, by label.", type: dict, returned: always}
addresses: {description: "Address of every instance behind the edge, by label.", type: dict, returned: with read}
names: {description: "Names that the edge routes to every instance, by label.", type: dict, returned: with read}
unknown: {description: Names that a rollout gave and no instance behind the edge has., type: list, returned: always}
streams: {description: Connections that nginx still has to instances that are out., type: int, returned: always}
seconds: {description: Seconds that it took., type: float, returned: always}
"""

import contextlib
import os
import time
from datetime import datetime, timezone
from json import loads
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_edge import RELOAD_S, UPSTREAMS, Edge, EdgeError, Places, text_of
from ansible.module_utils.rackserve_host import host_lock
from ansible.module_utils.rackserve_nginx import master_of, open_connections
from ansible.module_utils.rackserve_rotation import (
    OPERATOR,
    TIME,
    RotationError,
    digest_of,
    dump_marks,
    labels_of,
    marks_after,
    names_of,
    upstreams_of,
    weights_of,
)
from ansible.module_utils.rackserve_upgrade import upgrade

# Between two looks at the connections: a worker from before the reload may connect while it is told to end.
_LOOK_S = 0.2


def rotate(edge: Edge, params: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Change the rotation; return what the module returns.

    Raises:
        RotationError: a change that is refused, or that nginx refuses; the state from before is back.
    """
    began, table, before = time.monotonic(), edge.table(), edge.marks()
    meant, unknown = labels_of(table, params["set"])
    if unknown and params["by"] == OPERATOR:
        raise RotationError(
            f"no host and no instance {unknown[0]!r} is behind the edge; there are "
            f"{', '.join(sorted(table['servers']))}"
        )
    now = datetime.now(timezone.utc).strftime(TIME)  # noqa: UP017 - Python 3.9 runs this
    who = {key: params[key] for key in ("by", "run", "force")}
    after = marks_after(table, before, {name: params["set"][name] for name in meant if meant[name]}, now=now, **who)
    weights = weights_of(table, after)
    upstreams = upstreams_of(table, after)
    master, written = master_of(edge.pid_file), text_of(edge.upstreams)
    changed = after != before or upstreams != written
    if not check:
        if changed:
            _write(edge, dump_marks(after), upstreams)
        if master and (changed or not edge.has(digest_of(upstreams))):
            changed = True
            if not edge.reload(master, digest_of(upstreams)) and not _upgraded(edge):
                _restore(edge, dump_marks(before) if before else "", written)
                raise RotationError(
                    f"nginx did not load its configuration in {RELOAD_S:.0f} s and the rotation is as before; "
                    "read /var/log/nginx/error.log"
                )
    of_change = {label for labels in meant.values() for label in labels} if params["set"] else set(weights)
    out = [table["servers"][label]["address"] for label in sorted(of_change) if weights[label] == 0]
    streams = 0 if check else _wait(out, params["wait"])
    left = f"nginx still has {streams} connections to {', '.join(out)} after {params['wait']} s"
    return {
        "msg": left if streams else "",
        "changed": changed,
        "running": bool(master),
        "before": before,
        "after": after,
        "weights": weights,
        "unknown": unknown,
        "streams": streams,
        "seconds": round(time.monotonic() - began, 2),
    }


def _upgraded(edge: Edge) -> bool:
    """Return whether a new nginx has its place: one from before an upgrade cannot load the modules of another."""
    with contextlib.suppress(EdgeError):
        return bool(upgrade(edge, wait=0)["changed"])
    return False


def _write(edge: Edge, state: str, upstreams: str) -> None:
    kept = {path: text_of(path) for path in (edge.places.state, edge.upstreams)}
    edge.write(edge.places.state, state)
    edge.write(edge.upstreams, upstreams)
    if complaint := edge.test():
        for path, text in kept.items():
            edge.write(path, text)
        raise RotationError(f"nginx refuses its configuration and the rotation is as before: {complaint}")


def _restore(edge: Edge, state: str, upstreams: str) -> None:
    edge.write(edge.places.state, state)
    edge.write(edge.upstreams, upstreams)


def _wait(addresses: list[str], seconds: int) -> int:
    """Wait until two looks find no connection of nginx to some addresses; return how many it has."""
    if not addresses:
        return 0
    ends, looks = time.monotonic() + seconds, [1]
    while True:
        looks.append(open_connections(addresses))
        if not any(looks[-2:]) or time.monotonic() >= ends:
            return looks[-1]
        time.sleep(_LOOK_S)


def render(edge: Edge, table: str, *, check: bool) -> dict[str, Any]:
    """Write the upstreams of a table beside it, as the state on disk has them."""
    path = os.path.join(os.path.dirname(table), UPSTREAMS)
    text = upstreams_of(loads(text_of(table) or '{"groups": {}, "servers": {}}'), edge.marks())
    changed = text != text_of(path)
    if changed and not check:
        edge.write(path, text)
    return {"changed": changed}


def _run(module: AnsibleModule, places: Places) -> dict[str, Any]:
    params, edge = module.params, Edge(places)
    if params["table"]:
        return render(edge, params["table"], check=module.check_mode)
    marks = edge.marks()
    found: dict[str, Any] = {"changed": False, "installed": edge.installed, "running": False, "before": marks}
    found |= {"after": marks, "weights": {}, "unknown": [], "streams": 0, "seconds": 0.0}
    if not edge.installed:
        return {**found, "msg": "nginx is not installed here, or its configuration is not rackserve's; nothing changed"}
    if params["read"]:
        table = edge.table()
        addresses = {label: server["address"] for label, server in table["servers"].items()}
        found |= {"running": bool(master_of(edge.pid_file)), "names": names_of(table), "addresses": addresses}
        return {**found, "weights": weights_of(table, marks)}
    return {**found, **rotate(edge, params, check=module.check_mode)}


def main(places: Places | None = None) -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "set": {"type": "dict", "default": {}},
            "by": {"type": "str", "choices": ["operator", "rollout"], "default": "operator"},
            "run": {"type": "str", "default": ""},
            "wait": {"type": "int", "default": 0},
            "force": {"type": "bool", "default": False},
            "read": {"type": "bool", "default": False},
            "table": {"type": "path"},
        },
        supports_check_mode=True,
    )
    places = places or Places()
    module.params["set"] = {name: _number(weight) for name, weight in module.params["set"].items()}
    try:
        if module.check_mode or module.params["read"]:
            found = _run(module, places)
        else:
            with host_lock(places.lock):
                found = _run(module, places)
    except (RotationError, OSError, ValueError) as wrong:
        module.fail_json(msg=str(wrong))
    module.exit_json(**found)


def _number(weight: object) -> object:
    """Read a number that a template made a text."""
    return int(weight) if isinstance(weight, str) and weight.isdigit() else weight


if __name__ == "__main__":
    main()
