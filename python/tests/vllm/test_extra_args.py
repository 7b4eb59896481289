"""What `extra_args` may not say: what a key decides, what the unit cannot carry, and what is no flag of the release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rackserve.errors import InputError
from rackserve.vllm import Instance, config_of, parse_instances, release_of, releases, validate_release
from rackserve.vllm._arguments import owner_of, refusal_of, switch_of

CARRIED = Path(__file__).parents[1] / "data/vllm_carried.txt"
MODEL = {"repo": "o/m", "revision": "0" * 40}
BASE: dict[str, Any] = {"name": "a", "model": MODEL, "max_num_seqs": 4, "max_model_len": 4096, "port": 8000}
ANY = "0.32.0"


def refused(extra: dict[str, Any], version: str = ANY, **changes: Any) -> str:
    """Return what is said about extra_args, empty when they are accepted."""
    try:
        found = parse_instances([{**BASE, **changes, "extra_args": extra}])
    except InputError as wrong:
        return str(wrong).removeprefix("vllm_instances: ")
    return "; ".join(validate_release(found, release_of(version)))


def written(extra: dict[str, Any], version: str = ANY, **changes: Any) -> dict[str, Any]:
    instance = Instance.model_validate({**BASE, **changes, "extra_args": extra})
    return config_of(instance, release_of(version), flavour="cuda", engine="/s", shutdown_timeout=60)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        # vllm 0.32.0's own parser made max_model_len 99999 of the first (FawltyDeps#293, user-sync.py#5).
        (
            {"max-model": 99999},
            "extra_args.max-model is no flag of vLLM 0.32.0, whose parser takes it for max-model-len; set",
        ),
        ({"max-num-b": 1}, "whose parser takes it for max-num-batched-tokens; write max-num-batched-tokens"),
        ({"max-num-batch-tokens": 1}, "is no flag of vLLM 0.32.0; write max-num-batched-tokens"),
        ({"max-model-length": 1}, "is no flag of vLLM 0.32.0; set max_model_len"),
        ({"zzz": 1}, "extra_args.zzz is no flag of vLLM 0.32.0; leave it out"),
        ({"compilation.mode": 1}, "whose parser takes it for compilation-config; write compilation-config"),
        ({"cc": {"mode": 0}}, "extra_args.cc is the short name of compilation-config; write compilation-config"),
        ({"seed": False}, "extra_args.seed is false, which vLLM 0.32.0 drops, and it has no --no-seed; leave it out"),
        ({"swap-space": 4}, "extra_args.swap-space is 4, which vLLM 0.32.0 does not have: it went after 0.10.2"),
    ],
)
def test_a_name_that_is_no_full_flag_of_the_release_is_refused_with_the_nearest(
    extra: dict[str, Any], said: str
) -> None:
    assert said in refused(extra)


@pytest.mark.parametrize("version", releases())
def test_every_full_flag_of_a_release_is_known(version: str) -> None:
    release = release_of(version)
    known = [flag for flag in release.flags if not owner_of(flag) and not refusal_of(flag, "x")]
    said = [refused({flag: "x"}, version) for flag in sorted(known)]
    assert [sentence for sentence in said if "is no flag" in sentence or "does not have" in sentence] == []


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"max-model-len": 1}, "extra_args.max-model-len is not an extra argument; set max_model_len"),
        ({"device-memory-utilization": 0.5}, "set gpu_memory_utilization"),
        ({"disable-prefix-caching": True}, "set prefix_caching"),
        ({"enable-prefix-caching": False}, "set prefix_caching"),
        ({"no-enable-prefix-caching": True}, "set prefix_caching"),
        ({"no-enable-prefix-caching": False}, "set prefix_caching"),
        ({"disable-lora": True}, "set lora"),
        ({"disable-auto-tool-choice": True}, "set tool_call_parser"),
        ({"tp": 2}, "extra_args.tp is not an extra argument; set tensor_parallel_size"),
        ({"max-model-len.x": 2}, "set max_model_len"),
        ({"device": "cpu"}, "set stack_runtime.flavour"),
        ({"-tp": 2}, "without leading dashes and with dashes inside; for this one, set tensor_parallel_size"),
        ({"tensor_parallel_size": 2}, "with dashes inside; for this one, set tensor_parallel_size"),
        ({"max_num_batched_tokens": 2}, "extra_args.max_num_batched_tokens: write the flag's name"),
        ({"seed=1 --port": 2}, "write the flag's name without leading dashes"),
        ({"": 2}, "write the flag's name without leading dashes"),
        # A later flag in a list would be a flag of its own.
        (
            {"allowed-media-domains": ["x", "--ssl-keyfile", "/x"]},
            "has the value '--ssl-keyfile', which vLLM would read",
        ),
        ({"tokenizer": "-tp"}, "has the value '-tp', which vLLM would read as another flag; set a value"),
        ({"middleware": []}, "is an empty list, which vLLM drops; leave it out"),
    ],
)
def test_what_a_key_decides_is_refused_under_every_spelling(extra: dict[str, Any], said: str) -> None:
    assert said in refused(extra, "0.33.0")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"nnodes": 2}, "extra_args.nnodes is 2, and an instance is of one host, whose engine reaches no other; leave"),
        ({"n": 2}, "whose engine reaches no other"),
        ({"node-rank": 1}, "whose engine reaches no other"),
        ({"headless": True}, "whose engine reaches no other"),
        ({"master-addr": "10.0.0.1"}, "whose engine reaches no other"),
        ({"data-parallel-rank": 0}, "stand behind its one socket"),
        ({"data-parallel-size": 2, "data-parallel-size-local": 1}, "leave data-parallel-size-local out"),
        (
            {"ssl-keyfile": "/etc/x.key"},
            "speaks HTTP to its socket proxy and its probe; leave it out; clients have TLS",
        ),
        ({"enable-ssl-refresh": True}, "speaks HTTP"),
        ({"root-path": "/x"}, "ask for the paths as they are"),
        ({"grpc": True}, "speak HTTP, and no other port is reached"),
        ({"skip-tokenizer-init": True}, "the probe sends text"),
        ({"no-skip-tokenizer-init": False}, "the probe sends text"),
        ({"disable-log-stats": True}, "the probe and the alerts read the metrics"),
        ({"otlp-traces-endpoint": "http://c:4317"}, "reaches no collector"),
        ({"tool-server": "mcp:80"}, "reaches no server"),
        ({"download-dir": "/data"}, "models are files of the bundle"),
        ({"max-logprobs": 0}, "extra_args.max-logprobs is 0, and the probe compares 1; set 1 or more"),
        (
            {"kv-transfer-config": {"kv_connector": "NixlConnector", "kv_role": "kv_both"}},
            "kv_connector 'NixlConnector'",
        ),
        ({"kv-transfer-config.kv_role": "kv_producer"}, "kv_role 'kv_producer', and an instance's engine reaches no"),
        ({"kv-transfer-config": '{"kv_role": "kv_consumer"}'}, "kv_role 'kv_consumer'"),
        (
            {
                "kv-transfer-config": {
                    "kv_connector_extra_config": {"connectors": [{"kv_connector": "MoRIIOConnector"}]}
                }
            },
            "kv_connector 'MoRIIOConnector'",
        ),
        ({"ec-transfer-config": {"ec_role": "ec_consumer"}}, "ec_role 'ec_consumer'"),
        ({"kv-events-config": {"enable_kv_cache_events": True}}, "publishes at 'tcp://*:5557', and nobody reaches"),
        ({"tool-parser-plugin": "/root/p.py"}, "is '/root/p.py', and the engine sees nothing of /root; set a path"),
        ({"tokenizer": "/var/lib/vllm/b/t"}, "the engine sees nothing of /var/lib/vllm"),
        ({"compilation-config.cache_dir": "/run/vllm-a/c"}, "where the engine cannot write; set a folder in /var/ca"),
        (
            {"profiler-config": {"torch_profiler_dir": "/data"}},
            "where the engine cannot write; set a folder in /var/ca",
        ),
        ({"compilation-config.cache_dir": "/opt/c"}, "extra_args.compilation-config.cache_dir is '/opt/c', where the"),
    ],
)
def test_what_the_unit_cannot_carry_is_refused_with_the_reason(extra: dict[str, Any], said: str) -> None:
    assert said in refused(extra)


@pytest.mark.parametrize(
    "extra",
    [
        {"nnodes": 1, "node-rank": 0, "master-addr": "127.0.0.1"},
        {"data-parallel-size": 2, "data-parallel-size-local": 2},
        {"no-skip-tokenizer-init": True},
        {"enable-ssl-refresh": False},
        {"max-logprobs": -1},
        {"kv-transfer-config": {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}},
        {"kv-events-config": {"enable_kv_cache_events": False}},
        {"kv-events-config": {"enable_kv_cache_events": True, "publisher": "null"}},
        {"tool-parser-plugin": "/opt/plugins/p.py"},
        {"profiler-config": {"torch_profiler_dir": "/var/cache/vllm/a/profile"}},
        {"compilation-config.cache_dir": "/var/cache/vllm/a/c", "compilation-config.cudagraph_mode": "NONE"},
        {"hf-overrides": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}},
        {"cpu-offload-gb": -1, "seed": -3, "generation-config": "vllm"},
        {"disable-fastapi-docs": False, "uvicorn-log-level": "info"},
        {"limit-mm-per-prompt": '{"image": 2}', "middleware": ["pkg.module.Class"]},
        {"no-async-scheduling": True},
        {"stream-interval": 10, "trust-remote-code": True},
    ],
)
def test_what_an_instance_carries_is_accepted(extra: dict[str, Any]) -> None:
    assert refused(extra) == ""


def test_max_logprobs_is_compared_with_what_the_probe_asks_for() -> None:
    adapter = {"name": "x", "path": "/l/x"}
    assert "the probe compares 5; set 5 or more" in refused({"max-logprobs": 4}, lora=[adapter])
    assert refused({"max-logprobs": 5}, lora=[adapter]) == ""
    assert refused({"max-logprobs": 0}, task="embed") == ""


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"async-scheduling": True, "no-async-scheduling": True}, "by both async-scheduling and no-async-scheduling"),
        ({"enable-chunked-prefill": True, "disable-chunked-prefill": True}, "one flag by both disable-chunked-prefill"),
        ({"hf-overrides": {"a": 1}, "hf-overrides.b": 2}, "by both hf-overrides and hf-overrides.b; leave one"),
        ({"hf-overrides.a": 1, "hf-overrides.a.b": 2}, "by both hf-overrides.a and hf-overrides.a.b"),
        ({"hf-overrides.a": ["1"], "hf-overrides.a+": "2"}, "by both hf-overrides.a and hf-overrides.a+"),
    ],
)
def test_one_flag_under_two_names_is_refused(extra: dict[str, Any], said: str) -> None:
    assert said in refused(extra, "0.33.0")


def test_dotted_names_become_the_json_of_their_flag() -> None:
    found = written({"compilation-config.mode": 0, "compilation-config.pass_config.fuse": True, "a.b+": "x,y"})
    assert found["compilation-config"] == '{"mode": 0, "pass_config": {"fuse": true}}'
    assert found["a"] == '{"b": ["x", "y"]}'


def test_a_default_of_rackserve_gives_way_to_an_extra_argument() -> None:
    shown = written({"disable-fastapi-docs": False, "enable-uvicorn-access-log": True}, "0.33.0")
    assert "disable-fastapi-docs" not in shown
    assert "disable-uvicorn-access-log" not in shown
    assert shown["no-disable-fastapi-docs"] is True


@pytest.mark.parametrize("size", [2, "2"])
def test_workers_are_counted_however_their_number_is_written(size: int | str) -> None:
    extra = {"pipeline-parallel-size": size}
    assert refused(extra, gpus=[0, 1], tensor_parallel_size=1) == ""
    assert "makes 4 workers and gpus names 2" in refused(extra, gpus=[0, 1], tensor_parallel_size=2)
    assert "makes 4 workers" in refused({"prefill-context-parallel-size": size}, gpus=[0, 1], tensor_parallel_size=2)


@pytest.mark.parametrize("value", [None, [1]])
def test_a_value_of_the_wrong_type_is_one_sentence(value: object) -> None:
    said = refused({"tokenizer": value})
    assert said.startswith("instance 'a': extra_args.tokenizer")
    assert said.count("Input should be") == 1


def test_every_flag_of_the_newest_releases_was_judged() -> None:
    carried = set(CARRIED.read_text(encoding="utf-8").split())
    flags = release_of("0.32.0").flags | release_of("0.33.0").flags
    names = {flag for flag in flags if not flag.startswith("no-") and switch_of(flag) == flag.removeprefix("enable-")}
    names |= {flag for flag in flags if flag.startswith("disable-") and f"enable-{switch_of(flag)}" not in flags}
    open_ones = {flag for flag in names if not owner_of(flag) and not refusal_of(flag, True)}
    assert open_ones == carried
