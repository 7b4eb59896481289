"""Returns hosts to the generation before: what `rackserve rollback` and `rackserve rollout --abort` share."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._progress import shown
from rackserve.run import failure_messages, run_site

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

_PLAYBOOK: Final = "playbooks/roll_back.yml"


def roll_back(args: argparse.Namespace, hosts: Sequence[str], only_from: Mapping[str, str]) -> int:
    """Run the playbook and print its result.

    Args:
        args: the command's, with `inventory` and `json`.
        hosts: those to return.
        only_from: `host:instance` to the digest of the generation that it leaves; an instance on which another one is
            live stays as it is. Empty: every instance of the hosts returns.

    Returns:
        The exit code of the command.
    """
    variables: dict[str, object] = {"stack_rollback_hosts": list(hosts)}
    if only_from:
        variables["stack_rollback_from"] = dict(only_from)
    with shown() as on_event:
        result, fleet = run_site(
            args.inventory, None, check=False, on_event=on_event, variables=variables, playbook_name=_PLAYBOOK
        )
    messages = failure_messages(result, fleet)
    if args.json:
        found = {"ok": result.ok, "returned": list(hosts), "hosts": [asdict(host) for host in result.hosts]}
        print(json.dumps({**found, "messages": messages, "record": str(result.record_dir)}, indent=2))
    else:
        if result.ok:
            print(f"{', '.join(hosts)}: on the generation before")
        for message in messages:
            print(message, file=sys.stderr)
        print(f"record: {result.record_dir}", file=sys.stderr)
    return EXIT_OK if result.ok else EXIT_CHECK_FAILED
