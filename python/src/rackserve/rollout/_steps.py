"""The steps of a rollout: how many hosts are changed at once, as `serial` of an Ansible play takes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_WHOLE: Final = 100


def parse_steps(raw: object) -> tuple[int | str, ...]:
    """Return the steps: numbers of hosts, and shares such as `25%` of the hosts that serve and change.

    Raises:
        InputError: there is none, or one is neither a number from 1 nor a share from 1% to 100%.
    """
    given = list(raw) if isinstance(raw, list | tuple) else [raw]
    if not given:
        raise InputError('stack_rollout_steps is empty; set at least one step, such as [1, "25%"]')
    wrong = [step for step in given if _step(step) is None]
    if wrong:
        raise InputError(
            f"stack_rollout_steps: {', '.join(map(repr, wrong))} of {given!r}; "
            'a step is a number of hosts from 1, or a share of them from "1%" to "100%"'
        )
    return tuple(step for step in map(_step, given) if step is not None)


def _step(raw: object) -> int | str | None:
    text = "" if isinstance(raw, bool) else str(raw).strip()
    if re.fullmatch(r"[1-9][0-9]*", text):
        return int(text)
    share = re.fullmatch(r"([1-9][0-9]*)\s*%", text)
    return f"{share.group(1)}%" if share and int(share.group(1)) <= _WHOLE else None


def batch_size(steps: Sequence[int | str], hosts: int, number: int) -> int:
    """Return how many hosts the batch of a number, from 0, has at most; the last step is repeated.

    The first batch has one host, whatever the first step is: it proves the change for the others.
    A share is rounded down, and is one host at least, as Ansible does it.
    """
    sizes = [_hosts_of(step, hosts) for step in steps]
    if sizes[0] > 1:
        sizes.insert(0, 1)
    return sizes[min(number, len(sizes) - 1)]


def _hosts_of(step: int | str, hosts: int) -> int:
    if isinstance(step, int):
        return step
    return max(1, hosts * int(step.removesuffix("%")) // _WHOLE)
