"""What an operator writes: every mistake has one clear message, and right input is taken as it is."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.errors import InputError
from rackserve.vllm import parse_instances

REVISION = "0" * 40
LORA = {"name": "x", "repo": "o/x", "revision": "1" * 40}


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
        ([instance(extra_args={"api-key": "x"})], ["keys at the edge"]),
        ([instance(extra_args={"--eager": True})], ["without leading dashes"]),
        ([instance(extra_args={"dtype": "float16"})], ["dtype is not an extra argument; set dtype"]),
        ([instance(gpus=[-1])], ["gpus", "-1 is not a GPU"]),
        ([instance(gpus=["first"])], ["gpus", "'first' is not a GPU", "nvidia-smi -L"]),
        ([instance(gpus=[0, 0])], ["named twice"]),
        ([instance(gpus=["0000:3b:00.0", "00000000:3B:00.0"])], ["named twice"]),
        ([instance(gpus=["3b:00.0"])], ["'3b:00.0' is not a GPU", "0000:3b:00.0"]),
        ([instance(gpus=[0, 1], tensor_parallel_size=4)], ["makes 4 workers and gpus names 2"]),
        ([instance(chat_template="../t.jinja")], ["chat_template", "inside the inventory", "'../t.jinja'"]),
        ([instance(task="embedding")], ["task", "found 'embedding'"]),
        ([instance(task="embed", tool_call_parser="hermes")], ["only a model that generates calls tools"]),
        ([instance(extra_args={"runner": "pooling"})], ["runner is not an extra argument; set task"]),
        ([instance(api_server_count=0)], ["api_server_count", "found 0"]),
        ([instance(lora=[{**LORA, "path": "/l"}])], ["adapter 'x' has to have either repo and revision", "or path"]),
        ([instance(lora=[{"name": "x", "repo": "o/x"}])], ["adapter 'x' has to have either repo and revision"]),
        ([instance(lora=[{**LORA, "rank": 8}])], ["unknown key 'lora.1.rank'", "known keys are name, path, repo"]),
        ([instance(lora=[{"name": "x", "path": "l"}])], ["lora.1.path", "found 'l'"]),
        ([instance(lora=[LORA, LORA])], ["instance 'a' has 2 adapters of the name 'x'"]),
        ([instance(lora=[{**LORA, "name": "o/m"}])], ["'o/m' is also a served name of instance 'a'"]),
        (
            [instance(lora=[LORA]), instance(name="b", lora=[{**LORA, "revision": "2" * 40}])],
            ["'x' is also that of another adapter, of instance 'b'"],
        ),
        ([instance(extra_args={"lora-modules": ["x=/l"]})], ["lora-modules is not an extra argument; set lora"]),
        ([instance(quantization="int4")], ["quantization", "'int4'", "'awq', 'gptq' or 'fp8'"]),
    ],
)
def test_a_mistake_names_instance_key_and_value(raw: list[dict[str, Any]], reasons: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        parse_instances(raw)
    for reason in reasons:
        assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "shared_by"),
    [
        ({}, 1),
        ({"gpus": [0, 1, 2, 3]}, 4),
        ({"gpus": ["0000:3b:00.0", "0000:5E:00.0"]}, 2),
        ({"gpus": [f"GPU-{'0' * 8}-{'0' * 4}-{'0' * 4}-{'0' * 4}-{'0' * 12}"]}, 1),
        ({"gpus": [0, 1, 2, 3], "tensor_parallel_size": 2, "extra_args": {"pipeline-parallel-size": 2}}, 2),
        ({"tensor_parallel_size": 2}, 2),
    ],
)
def test_an_instance_spreads_over_its_gpus(changes: dict[str, Any], shared_by: int) -> None:
    assert parse_instances([instance(**changes)])[0].tensor_parallel == shared_by


def test_every_error_is_reported_at_once() -> None:
    with pytest.raises(InputError) as refused:
        parse_instances([instance(name="a", x=1), instance(name="b", y=2)])
    assert "'x'" in str(refused.value)
    assert "'y'" in str(refused.value)


def test_two_copies_of_an_instance_share_their_adapters_and_need_each_part_once() -> None:
    one, two = parse_instances([instance(lora=[LORA]), instance(name="b", lora=[LORA])])
    assert one.snapshots == two.snapshots == {("o/m", REVISION), ("o/x", "1" * 40)}
