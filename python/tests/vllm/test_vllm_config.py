"""What a release is given: only flags that its wheel has, never `false`, and nothing that it would misread."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rackserve.errors import InputError
from rackserve.vllm import (
    Instance,
    cli_args,
    config_of,
    dtype_for,
    engine_address,
    environment_of,
    parser_of,
    release_of,
    releases,
    validate_release,
)

REVISION = "0" * 40
OLDEST, NEWEST = "0.6.4.post1", "0.33.0"
TYPICAL: dict[str, dict[str, Any]] = {
    "plain": {},
    "without prefix cache": {"prefix_caching": False},
    "two names": {"model": {"repo": "o/m", "revision": REVISION, "served_names": ["m", "n"]}},
    "over four GPUs": {"gpus": [0, 1, 2, 3]},
    "quantized, on a part of a GPU": {"gpus": [0], "quantization": "awq", "gpu_memory_utilization": 0.5},
    "fp8 cache": {"kv_cache_dtype": "fp8"},
    "tools": {"tool_call_parser": "hermes", "chat_template": "/etc/vllm/t.jinja"},
    "adapters": {"lora": [{"name": "a", "path": "/l/a"}, {"name": "b", "path": "/l/b"}]},
    "vectors": {"task": "embed"},
    "vectors, no prefix cache": {"task": "embed", "prefix_caching": False},
    "more flags": {"extra_args": {"enforce-eager": True, "max-num-batched-tokens": 4096}},
}


def instance(**changes: object) -> Instance:
    model = {"repo": "o/m", "revision": REVISION, "served_names": ["m"]}
    base = {"name": "a", "model": model, "max_num_seqs": 4, "max_model_len": 128, "port": 8000}
    return Instance.model_validate({**base, **changes})


def rendered(version: str = "0.32.0", flavour: str = "cuda", **changes: object) -> dict[str, Any]:
    subject, release = instance(**changes), release_of(version)
    engine = engine_address(subject, release, "0")
    return config_of(subject, release, flavour=flavour, engine=engine, shutdown_timeout=60)


@pytest.mark.parametrize("changes", TYPICAL.values(), ids=TYPICAL)
@pytest.mark.parametrize("version", releases())
def test_every_release_gets_only_flags_that_it_has(version: str, changes: dict[str, Any]) -> None:
    has = {f"--{flag}" for flag in release_of(version).flags}
    subject = instance(**changes)
    on_line = {word for word in cli_args(subject, release_of(version)) if word.startswith("--")}
    in_file = {f"--{key}" for key in rendered(version, **changes)}
    assert validate_release([subject], release_of(version)) == []
    assert on_line | in_file <= has
    assert not on_line & in_file


@pytest.mark.parametrize(
    ("version", "task", "expected"),
    [
        ("0.6.4.post1", "embed", {"task": "embedding"}),
        ("0.10.2", "embed", {"runner": "pooling", "convert": "embed"}),
        ("0.33.0", "score", {"runner": "pooling", "convert": "classify"}),
        ("0.33.0", "generate", {"enable-prefix-caching": True}),
    ],
)
def test_the_config_has_the_task_of_the_model(version: str, task: str, expected: dict[str, Any]) -> None:
    keys = ("task", "runner", "convert", "enable-prefix-caching")
    assert {key: value for key, value in rendered(version, task=task).items() if key in keys} == expected


def test_a_model_that_does_not_generate_calls_no_tools() -> None:
    repo = {"model": {"repo": "Qwen/Qwen2.5-7B", "revision": REVISION}}
    assert parser_of(instance(**repo), release_of(NEWEST)) == "hermes"
    assert parser_of(instance(**repo, task="embed"), release_of(NEWEST)) is None


@pytest.mark.parametrize("changes", TYPICAL.values(), ids=TYPICAL)
@pytest.mark.parametrize("version", releases())
def test_no_release_gets_false_or_its_defaults(version: str, changes: dict[str, Any]) -> None:
    config = rendered(version, **changes)
    assert not [key for key, value in config.items() if value is False or value is None]
    assert {"max-num-seqs", "max-model-len", "gpu-memory-utilization", "revision"} <= config.keys()
    assert json.loads(config.get("allowed-origins", "[]")) == []


def test_the_oldest_release_has_the_model_and_lists_on_its_command_line() -> None:
    subject = instance(lora=[{"name": "x", "path": "/l/x"}], prefix_caching=False)
    assert cli_args(subject, release_of(OLDEST)) == ["o/m", "--served-model-name", "m", "--lora-modules", "x=/l/x"]
    config = rendered(OLDEST, lora=[{"name": "x", "path": "/l/x"}], prefix_caching=False)
    assert "model" not in config
    assert not [value for value in config.values() if isinstance(value, list)]
    assert not [key for key in config if "prefix-caching" in key or key == "shutdown-timeout"]
    assert config["disable-log-requests"] is True
    assert config["gpu-memory-utilization"] == 0.9


def test_the_newest_release_has_all_in_its_file() -> None:
    config = rendered(NEWEST)
    assert cli_args(instance(), release_of(NEWEST)) == []
    assert (config["model"], config["served-model-name"]) == ("o/m", ["m"])
    assert (config["shutdown-timeout"], config["gpu-memory-utilization"]) == (60, 0.92)
    assert not {"disable-log-requests", "allowed-origins"} & config.keys()


@pytest.mark.parametrize(("on", "key"), [(True, "enable-prefix-caching"), (False, "no-enable-prefix-caching")])
def test_a_switch_that_is_off_is_written_as_its_negation(on: bool, key: str) -> None:  # noqa: FBT001
    assert rendered(prefix_caching=on)[key] is True


def test_an_extra_switch_that_is_off_is_negated_and_a_mapping_is_json() -> None:
    extra = {"async-scheduling": False, "no-x": False, "compilation-config": {"level": 3}}
    config = rendered(extra_args=extra)
    assert config["no-async-scheduling"] is config["x"] is True
    assert config["compilation-config"] == '{"level": 3}'


def test_where_to_listen() -> None:
    assert rendered(NEWEST)["uds"] == "/run/vllm-a.0/api.sock"
    assert not {"host", "port"} & rendered(NEWEST).keys()
    oldest = rendered(OLDEST)
    assert (oldest["host"], oldest["port"]) == ("127.0.0.1", 8000)
    assert "uds" not in oldest


def test_a_parser_is_the_instances_own_or_a_known_models() -> None:
    qwen = {"repo": "Qwen/Qwen2.5-7B-Instruct", "revision": REVISION}
    newest = release_of(NEWEST)
    assert parser_of(instance(model=qwen), newest) == "hermes"
    assert parser_of(instance(model=qwen, tool_call_parser="pythonic"), newest) == "pythonic"
    assert parser_of(instance(model=qwen, tool_call_parser="none"), newest) is None
    assert rendered(model=qwen)["enable-auto-tool-choice"] is True
    assert not {"enable-auto-tool-choice", "tool-call-parser"} & rendered().keys()


def test_utilisation_is_a_matter_of_gpus() -> None:
    assert "gpu-memory-utilization" not in rendered(flavour="cpu", gpu_memory_utilization=0.5)
    assert rendered(gpu_memory_utilization=0.5)["gpu-memory-utilization"] == 0.5


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [(None, "auto"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((10, 0), "bfloat16")],
)
def test_auto_is_what_the_gpu_computes_well(capability: tuple[int, int] | None, dtype: str) -> None:
    assert dtype_for(capability) == dtype


def test_a_gpu_that_is_too_old_is_refused() -> None:
    with pytest.raises(InputError, match=r"capability 6\.1"):
        dtype_for((6, 1))


def test_a_type_that_was_chosen_stays() -> None:
    subject = instance(dtype="float32")
    config = config_of(subject, release_of(NEWEST), flavour="cuda", engine="/s", shutdown_timeout=1, capability=(7, 5))
    assert config["dtype"] == "float32"


def test_the_environment_follows_the_kind_of_host_and_the_release() -> None:
    newest = release_of(NEWEST)
    assert environment_of(instance(), newest, "cpu", 2) == {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_WAIT_POLICY": "passive",
    }
    assert environment_of(instance(gpus=[0, 1]), newest, "cuda", 2) == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }
    args = environment_of(instance(), release_of(OLDEST), "cpu", 2)["RACKSERVE_SERVE_ARGS"]
    assert args == "o/m --served-model-name m"
