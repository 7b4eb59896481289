"""The drained instances after `rackserve drain` or `undrain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackserve.edge._backend import parse_backends
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from rackserve.edge._backend import Backend


def drained_after(
    backends: Sequence[dict[str, Any]],
    drained: Collection[str],
    drain: Sequence[str],
    undrain: Sequence[str],
    *,
    force: bool = False,
) -> list[str]:
    """Return the labels of the instances that are out of rotation afterwards.

    Args:
        backends: As in `nginx_backends`.
        drained: Labels that are out of rotation now; those of removed instances are dropped.
        drain: Hosts, or labels as `gpu1:smollm2`, to take out.
        undrain: Hosts or labels to take back in.
        force: Drain even the last instance of a model.

    Raises:
        InputError: a wrong backend, an unknown name, a name in both lists, or a model that would have no instance left.
    """
    labels = {backend.label: backend for backend in parse_backends(backends)}
    out, back = _labels(drain, labels), _labels(undrain, labels)
    if both := sorted(out & back):
        raise InputError(f"{', '.join(both)}: to be drained and undrained at once; name it in one of the two")
    after = (labels.keys() & set(drained) | out) - back
    if out and not force:
        _refuse_last(labels, out, after)
    return sorted(after)


def _labels(names: Iterable[str], labels: dict[str, Backend]) -> set[str]:
    found: set[str] = set()
    for name in names:
        meant = {label for label, backend in labels.items() if name in (label, backend.host)}
        if not meant:
            raise InputError(
                f"no host and no instance {name!r} is behind the edge; there are {', '.join(sorted(labels))}"
            )
        found |= meant
    return found


def _refuse_last(labels: dict[str, Backend], out: set[str], after: set[str]) -> None:
    left = {name for label in labels.keys() - after for name in labels[label].served_names}
    lost = sorted({name for label in out for name in labels[label].served_names} - left)
    if lost:
        raise InputError(
            f"without {', '.join(sorted(out))} no instance would serve {', '.join(lost)}; "
            "undrain another one first, or drain them anyway with --force (nginx_drain_force: true)"
        )
