"""Which instances are out of rotation after a change."""

from __future__ import annotations

import re

import pytest

from rackserve.edge import drained_after
from rackserve.errors import InputError

BACKENDS = [
    {"host": "gpu1", "instance": "a", "address": "10.0.0.11", "port": 8000, "served_names": ["small"]},
    {"host": "gpu1", "instance": "b", "address": "10.0.0.11", "port": 8001, "served_names": ["large"]},
    {"host": "gpu2", "instance": "a", "address": "10.0.0.12", "port": 8000, "served_names": ["small", "large"]},
]


@pytest.mark.parametrize(
    ("before", "drain", "undrain", "after"),
    [
        ([], [], [], []),
        ([], ["gpu1:a"], [], ["gpu1:a"]),
        ([], ["gpu1"], [], ["gpu1:a", "gpu1:b"]),
        (["gpu1:a", "gpu1:b"], [], ["gpu1:b"], ["gpu1:a"]),
        (["gpu2:a"], ["gpu1:a"], ["gpu2"], ["gpu1:a"]),
        (["gone:a"], [], [], []),
    ],
)
def test_marks(before: list[str], drain: list[str], undrain: list[str], after: list[str]) -> None:
    assert drained_after(BACKENDS, before, drain=drain, undrain=undrain) == after


@pytest.mark.parametrize(
    ("before", "drain", "undrain", "reason"),
    [
        ([], ["gpu9"], [], "no host and no instance 'gpu9' is behind the edge; there are gpu1:a, gpu1:b, gpu2:a"),
        ([], [], ["gpu1:c"], "no host and no instance 'gpu1:c'"),
        ([], ["gpu1"], ["gpu1:a"], "gpu1:a: to be drained and undrained at once"),
        (["gpu2:a"], ["gpu1:a"], [], "without gpu1:a no instance would serve small"),
    ],
)
def test_refusals(before: list[str], drain: list[str], undrain: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        drained_after(BACKENDS, before, drain=drain, undrain=undrain)


def test_the_last_one_is_drained_when_forced() -> None:
    assert drained_after(BACKENDS, ["gpu2:a"], drain=["gpu1:a"], undrain=[], force=True) == ["gpu1:a", "gpu2:a"]


def test_a_wrong_backend_is_refused_before_a_name_is_looked_for() -> None:
    with pytest.raises(InputError, match="nginx_backends: instance number 1: 'host' is missing; set it"):
        drained_after([{key: value for key, value in BACKENDS[0].items() if key != "host"}], [], ["gpu1"], [])
