"""The file given to `--config`, which must never hold `false`."""

from __future__ import annotations

import pytest

from rackserve.instances import Instance, ModelRef
from rackserve.vllm_config import config_of, environment_of

REVISION = "0" * 40


def instance(**changes: object) -> Instance:
    model = ModelRef(repo="o/m", revision=REVISION, served_names=["m"])
    base = {"name": "a", "model": model, "max_num_seqs": 4, "max_model_len": 128, "port": 8000}
    return Instance.model_validate({**base, **changes})


def test_a_plain_instance_says_all_that_matters() -> None:
    config = config_of(instance(), "10.0.0.1", "cpu", 60)
    assert config["model"] == "o/m"
    assert config["revision"] == REVISION
    assert config["served-model-name"] == ["m"]
    assert (config["host"], config["port"]) == ("10.0.0.1", 8000)
    assert config["max-num-seqs"] == 4
    assert config["shutdown-timeout"] == 60
    assert "disable-log-requests" not in config


@pytest.mark.parametrize(("on", "key"), [(True, "enable-prefix-caching"), (False, "no-enable-prefix-caching")])
def test_a_switch_that_is_off_is_written_as_its_negation(on: bool, key: str) -> None:  # noqa: FBT001
    config = config_of(instance(prefix_caching=on), "h", "cpu", 1)
    assert config[key] is True
    assert False not in [value for value in config.values() if isinstance(value, bool)]


def test_a_tool_parser_turns_tool_choice_on() -> None:
    assert config_of(instance(tool_call_parser="hermes"), "h", "cpu", 1)["enable-auto-tool-choice"] is True
    assert "enable-auto-tool-choice" not in config_of(instance(), "h", "cpu", 1)


def test_utilisation_is_a_matter_of_gpus() -> None:
    shared = instance(gpu_memory_utilization=0.5)
    assert "gpu-memory-utilization" not in config_of(shared, "h", "cpu", 1)
    assert config_of(shared, "h", "cuda", 1)["gpu-memory-utilization"] == 0.5


def test_extra_arguments_have_the_last_word() -> None:
    assert config_of(instance(extra_args={"dtype": "float32"}), "h", "cpu", 1)["dtype"] == "float32"


def test_adapters_are_given_by_name_and_path() -> None:
    config = config_of(instance(lora=[{"name": "router", "path": "/l/r"}]), "h", "cpu", 1)
    assert config["lora-modules"] == ["router=/l/r"]
    assert config["enable-lora"] is True


def test_the_environment_follows_the_kind_of_host() -> None:
    assert environment_of(instance(), "cpu", 2)["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert environment_of(instance(gpus=[0, 1]), "cuda", 2) == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }
