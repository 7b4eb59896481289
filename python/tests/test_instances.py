"""What an operator writes: every mistake has one clear message, and right input is taken as it is."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.errors import InputError
from rackserve.instances import parse_instances

REVISION = "0" * 40


def instance(**changes: Any) -> dict[str, Any]:
    base = {"name": "a", "model": {"repo": "o/m", "revision": REVISION}, "max_num_seqs": 4, "max_model_len": 128}
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def test_ports_are_given_in_order_around_those_that_are_set() -> None:
    parsed = parse_instances([instance(name="a"), instance(name="b", port=8000), instance(name="c")])
    assert [i.port for i in parsed] == [8001, 8000, 8002]


def test_the_served_name_is_the_repository_unless_given() -> None:
    named = {"repo": "o/m", "revision": REVISION, "served_names": ["x", "y"]}
    assert parse_instances([instance()])[0].served_names == ("o/m",)
    assert parse_instances([instance(model=named)])[0].served_names == ("x", "y")


@pytest.mark.parametrize(
    ("raw", "reasons"),
    [
        ([instance(max_seqs=3)], ["instance 'a'", "unknown key 'max_seqs'", "found 3", "max_num_seqs"]),
        ([instance(max_num_seqs=None)], ["'max_num_seqs' is missing"]),
        ([instance(model={"repo": "o/m", "revision": "main"})], ["model.revision", "'main'"]),
        ([instance(model={"repo": "o/m", "revision": REVISION, "rev": 1})], ["unknown key 'model.rev'"]),
        ([instance(name="A b")], ["name", "'A b'"]),
        ([instance(max_model_len=0)], ["max_model_len", "found 0"]),
        ([instance(port=8000), instance(name="b", port=8000)], ["port 8000 is used by 2 instances (a, b)"]),
        ([instance(), instance()], ["instance name 'a' is used 2 times"]),
        ([instance(dtype="int3")], ["dtype", "'int3'"]),
        ([instance(extra_args={"port": 1})], ["port is not an extra argument; set port"]),
        ([instance(extra_args={"api-key": "x"})], ["LoadCredential"]),
        ([instance(extra_args={"--eager": True})], ["without leading dashes"]),
        ([instance(extra_args={"enable-x": False})], ["write no-enable-x: true"]),
    ],
)
def test_a_mistake_names_instance_key_and_value(raw: list[dict[str, Any]], reasons: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        parse_instances(raw)
    for reason in reasons:
        assert reason in str(refused.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(InputError) as refused:
        parse_instances([instance(name="a", x=1), instance(name="b", y=2)])
    assert "'x'" in str(refused.value)
    assert "'y'" in str(refused.value)
