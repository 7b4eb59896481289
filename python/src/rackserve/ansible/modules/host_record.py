#!/usr/bin/python
"""Record what a run left on a host, or compare the host with the record."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_record
short_description: Record the state of a host, or find what differs from the record
description:
  - Reads what the roles declare as owned (roles/ROLE/vars/owned.yml) and keeps it in C(/var/lib/rackserve/record.json),
    readable by root alone. Comparing changes nothing. The action plugin of the same name makes C(owned) of the roles.
options:
  mode:
    description: C(write) replaces the record, C(compare) returns the differences from it.
    type: str
    choices: [write, compare]
    required: true
  owned: {description: Declarations by role; C(write) needs them., type: dict, default: {}}
  only:
    description: Roles whose part of the record is replaced, where there is one; an empty list replaces the whole.
    type: list
    elements: str
    default: []
  before:
    description: >-
      What C(compare) returned before the run. What differed then and was not changed since is no work of the run, and
      remains a difference. Empty takes the host as it is.
    type: dict
    default: {}
  accept:
    description: >-
      For C(write): C(reason), and C(seen), the sentences of C(compare) that a person has read. Where anything else
      differs by now, nothing is written.
    type: dict
    default: {}
  metrics: {description: File for the node exporter that C(write) replaces; empty writes none., type: str, default: ""}
author: rackserve
"""
EXAMPLES = r"""
- name: Compare the host with its record
  host_record: {mode: compare}
"""
RETURN = r"""
drift: {description: written; differences; prints; unread; seconds; problem., type: dict, returned: to compare}
left: {description: A sentence for each difference that remains., type: list, returned: to write}
rackserve_record:
  description: "Of an acceptance, for the record of the run: reason, and the sentences."
  type: dict
  returned: to write with accept
"""

import datetime as dt
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_state import (
    Host,
    RecordError,
    UnreadError,
    check,
    load,
    new_record,
    record_differs,
    save,
    write_metrics,
)


class UnseenError(ValueError):
    """What differs and was not seen by the person who accepts; the text is one sentence for an operator."""


def compare(host: Host) -> dict[str, Any]:
    """Return the differences, or the problem that there is no record."""
    try:
        return {**check(host), "problem": ""}
    except RecordError as missing:
        return {"written": "", "differences": [], "prints": {}, "unread": {}, "seconds": 0, "problem": str(missing)}


def write(host: Host, params: dict[str, Any], *, dry: bool) -> dict[str, Any]:
    """Replace the record, and return whether it differs from the one before."""
    before: dict[str, Any] = {}
    accept = params["accept"]
    try:
        before = load(host)
    except RecordError as missing:
        if accept:
            raise UnseenError(str(missing)) from None
        if params["only"]:  # a part of nothing: the next complete run writes the whole
            return {"changed": False, "left": []}
    if dry:
        return {"changed": False, "left": []}
    seen = read_accepted(host, accept) if accept else []
    now = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")  # noqa: UP017 - Python 3.9 runs this
    differed = params["before"] if before else {}
    record = new_record(host, params["owned"], now=now, only=params["only"], before=differed)
    save(host, record)
    result = check(host)
    if params["metrics"] and os.path.isdir(os.path.dirname(params["metrics"])):
        write_metrics(params["metrics"], result, time.time())
    left = [one["text"] for one in result["differences"]]
    found = {
        "changed": record_differs(host, before.get("roles", {}), record["roles"]),
        "left": left if before else [*left, *dropins_of_others(record["roles"])],
    }
    if accept:
        accepted = [text for text in seen if text not in left]
        found["rackserve_record"] = {"kind": "accept", "reason": accept["reason"], "differences": accepted}
    return found


def read_accepted(host: Host, accept: dict[str, Any]) -> list[str]:
    """Return a sentence for each difference, all of which a person has seen.

    Raises:
        UnseenError: something else differs by now.
    """
    texts = [str(one["text"]) for one in check(host)["differences"]]
    unseen = [text for text in texts if text not in accept["seen"]]
    if unseen:
        raise UnseenError(f"this differs too by now: {'; '.join(unseen)}; look again with `rackserve drift`")
    return texts


def dropins_of_others(roles: dict[str, Any]) -> list[str]:
    """Return a sentence for each drop-in that the first record takes as it is; those of packages are left out."""
    return [
        f"{path} is not rackserve's and changes {', '.join(entry['_units'])}; it is recorded as it is"
        for role in roles.values()
        for path, entry in sorted(role["state"]["unit"].items())
        if path.startswith(("/etc/", "/run/")) and "_units" in entry
    ]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "mode": {"type": "str", "choices": ["write", "compare"], "required": True},
            "owned": {"type": "dict", "default": {}},
            "only": {"type": "list", "elements": "str", "default": []},
            "before": {"type": "dict", "default": {}},
            "accept": {"type": "dict", "default": {}},
            "metrics": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    host = Host()
    if module.params["mode"] == "compare":
        module.exit_json(changed=False, drift=compare(host))
    try:
        module.exit_json(**write(host, module.params, dry=module.check_mode))
    except UnseenError as unseen:
        module.fail_json(msg=f"nothing was accepted on this host: {unseen}")
    except (UnreadError, OSError) as failed:
        module.fail_json(msg=f"the state of this host was not recorded: {failed}; mend that, and run the play again")


if __name__ == "__main__":
    main()
