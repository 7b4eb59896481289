"""Returns hosts to the generation before: what `rackserve rollback` and `rackserve rollout --abort` share."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rackserve.cli._progress import conclude, shown
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
    said = [f"{', '.join(hosts)}: on the generation before"] if result.ok else []
    returned = {"ok": result.ok, "returned": list(hosts), "hosts": [asdict(host) for host in result.hosts]}
    found = {**returned, "messages": messages, "record": str(result.record_dir)} if args.json else None
    return conclude(result, messages, said=said, found=found)
