"""Whether an instance starts, what it holds, and what to change; and the sentence for preflight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.capacity import (
    GIB,
    CapacityRequest,
    NotComputedError,
    Plan,
    Remedy,
    Settings,
    arithmetic_of,
    plan,
    plan_of,
    remedies,
    shape_of,
    validate_capacity,
    weights_of,
)
from rackserve.errors import InputError
from testing.known_models import DEEPSEEK, GEMMA_27B, LLAMA_3B, LLAMA_8B, SMOLLM2, model_configs, write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def planned(tmp_path: Path) -> Any:
    def work_out(config: dict[str, Any], release: str = "0.32.0", **settings: Any) -> Plan:
        shape = shape_of(config)
        weights = weights_of(write_model(tmp_path, config), shape)
        return plan(shape, weights, arithmetic_of(release), Settings(**{"max_num_seqs": 256, **settings}))

    return work_out


def test_the_parts_add_up_to_the_gpu(planned: Any) -> None:
    budget = planned(LLAMA_8B, max_model_len=8192, gpu_bytes=24 * GIB).budget

    assert sum(term.size for term in budget.terms) + budget.available + budget.unused == 24 * GIB


@pytest.mark.parametrize(("release", "terms"), [("0.10.2", 3), ("0.22.1", 4), ("0.26.0", 3), ("0.32.0", 4)])
def test_graphs_are_taken_off_where_vllm_does(planned: Any, release: str, terms: int) -> None:
    found = planned(LLAMA_8B, release, max_model_len=8192, gpu_bytes=24 * GIB)

    assert len(found.budget.terms) == terms


def test_weights_that_do_not_fit_leave_nothing_and_say_how_much_is_missing(planned: Any) -> None:
    found = planned(LLAMA_8B, max_model_len=1024, gpu_bytes=10 * GIB)

    assert not found.fits
    assert (found.budget.available, found.longest, found.capacity.num_blocks) == (0, 0, 0)
    assert found.short > found.budget.missing > 5 * GIB


def test_the_largest_length_starts_and_the_next_block_does_not(planned: Any) -> None:
    refused = planned(LLAMA_8B, max_model_len=131072, available_kv=6 * GIB)

    assert not refused.fits
    assert refused.longest == 6 * GIB // refused.layout.block_bytes * 16 - 16
    assert planned(LLAMA_8B, max_model_len=refused.longest, available_kv=6 * GIB).fits
    assert not planned(LLAMA_8B, max_model_len=refused.longest + 1, available_kv=6 * GIB).fits


def test_an_fp8_cache_is_no_remedy_on_a_gpu_that_does_not_store_one(planned: Any) -> None:
    tight = {"max_model_len": 38000, "gpu_bytes": int(23.6 * GIB), "utilization": 0.9}
    assert "kv_cache_dtype" in [remedy.setting for remedy in remedies(planned(LLAMA_8B, **tight))]
    lacking = remedies(planned(LLAMA_8B, **tight, fp8_kv_cache=False))
    assert [remedy.setting for remedy in lacking] == ["max_model_len", "utilization", "tensor_parallel"]


def test_remedies_start_the_instance_and_come_smallest_first(planned: Any) -> None:
    refused = planned(LLAMA_8B, max_model_len=38000, gpu_bytes=int(23.6 * GIB), utilization=0.9)
    found = remedies(refused)

    assert [remedy.setting for remedy in found] == ["max_model_len", "utilization", "kv_cache_dtype", "tensor_parallel"]
    assert planned(LLAMA_8B, max_model_len=38000, gpu_bytes=int(23.6 * GIB), utilization=float(found[1].value)).fits
    assert found[2:] == [Remedy("kv_cache_dtype", "fp8"), Remedy("tensor_parallel", "2")]


def test_a_set_kv_cache_reports_how_much_it_needs(planned: Any) -> None:
    refused = planned(SMOLLM2, max_model_len=8192, available_kv=100 << 20, device="cpu")

    assert remedies(refused) == [
        Remedy("max_model_len", str(refused.longest)),
        Remedy("available_kv", str(65 * refused.layout.block_bytes)),
    ]


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (
            SMOLLM2,
            {"max_model_len": 8193},
            "max_model_len 8193 is longer than the model's 8192 in vLLM 0.32.0; set 8192 or less",
        ),
        (LLAMA_3B, {"tensor_parallel": 16}, "16 does not divide the model's 24 attention heads; set one of 1, 2, 4, 8"),
        (LLAMA_3B, {"tensor_parallel": 3}, "3 does not divide the model's 8 KV heads, nor they it; set one of 1, 2, 4"),
        (SMOLLM2, {"device": "cpu", "available_kv": None}, "give --available-kv"),
        (SMOLLM2, {"available_kv": None}, "set --gpu-memory or --available-kv"),
    ],
)
def test_contradictions_are_refused(
    planned: Any, config: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        planned(config, **{"max_model_len": 1024, "available_kv": GIB, **settings})


def test_heads_are_replicated_past_their_number_and_latents_always(planned: Any) -> None:
    settings = {"max_model_len": 8192, "available_kv": 20 * GIB}

    assert planned(LLAMA_8B, tensor_parallel=16, **settings).layout.bytes_per_token == 2 * 128 * 2 * 32
    assert planned(DEEPSEEK, tensor_parallel=8, **settings).layout.bytes_per_token == 576 * 2 * 61


def test_gpus_that_share_out_the_layers_hold_the_most_of_one(planned: Any) -> None:
    settings = {"max_model_len": 8192, "available_kv": 20 * GIB, "pipeline_parallel": 3}

    assert planned(LLAMA_8B, **settings).layout.group_layers == 11
    assert planned(LLAMA_8B, "0.6.4.post1", **settings).layout.group_layers == 12
    with pytest.raises(NotComputedError, match="the split of layers with windows is not computed here"):
        planned(GEMMA_27B, **settings)


@pytest.mark.parametrize(
    ("config", "settings", "answer"),
    [
        (LLAMA_8B, (3, 20, 131072), (29789, 3.6364, 476624)),
        (SMOLLM2, (4, 2, 8192), (21845, 42.666, 349520)),
        (DEEPSEEK, (2, 20, 131072), (9395, 4.5874, 601280)),
    ],
)
def test_layers_that_are_shared_out_hold_what_vllm_0_32_says(
    planned: Any, config: dict[str, Any], settings: tuple[int, int, int], answer: tuple[int, float, int]
) -> None:
    gpus, gib, length = settings
    found = planned(config, max_model_len=length, available_kv=gib * GIB, pipeline_parallel=gpus).capacity

    assert (found.num_blocks, round(found.max_concurrency, 4), found.tokens) == answer


def test_an_encoder_has_no_kv_cache_and_always_fits(planned: Any) -> None:
    found = planned(model_configs()["bge-base-en"], max_model_len=512, gpu_bytes=24 * GIB)

    assert found.fits
    assert (found.needed, found.capacity.num_blocks, found.layout.bytes_per_token) == (0, 0, 0)
    assert found.longest == 512


def test_an_encoder_that_is_larger_than_the_gpu_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path, {**model_configs()["bge-m3"], "hidden_size": 8192, "intermediate_size": 32768})
    found = validate_capacity(_wanted(model, cpu_kv_bytes=None, gpu_bytes=24 * GIB))

    assert found is not None
    assert found.startswith("instance 'chat': the model and its activations need ")
    assert found.endswith("GiB more than it may use (predicted); set gpus to 4 of them")


def test_bitsandbytes_is_computed_only_where_vllm_loads_it(planned: Any) -> None:
    config = {**LLAMA_8B, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    settings = {"max_model_len": 8192, "gpu_bytes": 24 * GIB}

    assert planned(config, "0.26.0", **settings).fits
    with pytest.raises(NotComputedError, match=r"quantization bitsandbytes: vLLM 0\.32\.0 itself does not load it"):
        planned(config, **settings)


def test_a_window_is_sized_for_two_batches_on_a_gpu_only(planned: Any) -> None:
    gpu = planned(GEMMA_27B, max_model_len=131072, available_kv=20 * GIB, gpu_bytes=79 * GIB)
    cpu = planned(GEMMA_27B, max_model_len=131072, available_kv=20 * GIB, device="cpu")

    assert (gpu.batched_tokens, gpu.layout.in_flight) == (8192, 16384)
    assert (cpu.batched_tokens, cpu.layout.in_flight) == (2048, 2048)


def _wanted(model: Path, **changes: Any) -> CapacityRequest:
    base = CapacityRequest("chat", model, "0.32.0", max_model_len=8192, max_num_seqs=8, extra_args={}, cpu_kv_bytes=GIB)
    return replace(base, **changes)


def test_an_instance_that_fits_has_no_problem(tmp_path: Path) -> None:
    assert validate_capacity(_wanted(write_model(tmp_path, SMOLLM2))) is None


def test_a_refused_cpu_instance_names_what_to_set(tmp_path: Path) -> None:
    model = write_model(tmp_path, LLAMA_8B)

    assert validate_capacity(_wanted(model, max_model_len=16384)) == (
        "instance 'chat': one request of max_model_len 16384 needs 2.02 GiB of KV cache, and there are 1.00 GiB; "
        "set max_model_len to 8064 or less, or vllm_cpu_kvcache_gib to 3"
    )


def test_a_refused_gpu_instance_names_its_own_keys(tmp_path: Path) -> None:
    model = write_model(tmp_path, LLAMA_8B)
    found = validate_capacity(_wanted(model, max_model_len=131072, cpu_kv_bytes=None, gpu_bytes=int(23.6 * GIB)))

    assert found is not None
    assert "needs 16.00 GiB of KV cache, and there are 5.43 GiB (predicted); set max_model_len to 44480" in found
    assert found.endswith("or less, or gpus to 2 of them")


def test_a_prediction_refuses_only_beyond_its_doubt(tmp_path: Path) -> None:
    model = write_model(tmp_path, LLAMA_8B)
    wanted = _wanted(model, max_model_len=52000, cpu_kv_bytes=None, gpu_bytes=int(23.6 * GIB))

    assert validate_capacity(wanted) is None
    assert validate_capacity(replace(wanted, max_model_len=62000)) is not None


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"kv-cache-memory-bytes": 100 << 20}, "extra_args.kv-cache-memory-bytes to 1075838976"),
        ({"kv-cache-memory-bytes": True}, "extra_args.kv-cache-memory-bytes is True; set a whole number of 1 or more"),
    ],
)
def test_flags_among_the_extra_arguments_count(tmp_path: Path, extra: dict[str, Any], message: str) -> None:
    model = write_model(tmp_path, LLAMA_8B)
    found = validate_capacity(_wanted(model, extra_args=extra, cpu_kv_bytes=None, gpu_bytes=24 * GIB))

    assert found is not None
    assert message in found


def test_a_model_that_cannot_be_read_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    found = validate_capacity(_wanted(tmp_path))

    assert found is not None
    assert found.startswith("instance 'chat': ")
    assert "no readable config.json" in found


@pytest.mark.parametrize(
    ("name", "length", "release"),
    [
        ("falcon-7b", 2048, "0.32.0"),
        ("starcoder", 8192, "0.32.0"),
        ("longchat-linear-rope", 32768, "0.32.0"),
        ("qwen3-4b-yarn", 131072, "0.10.2"),
        ("dbrx", 32768, "0.32.0"),
        ("bloom-7b1", 4096, "0.32.0"),
        ("qwen2.5-omni-7b", 32768, "0.32.0"),
        ("bge-m3", 8194, "0.32.0"),
        ("qwen3-4b", 40960, "0.32.0"),
    ],
)
def test_a_model_in_other_words_than_llamas_is_served(tmp_path: Path, name: str, length: int, release: str) -> None:
    model = write_model(tmp_path, model_configs()[name])
    wanted = _wanted(model, release=release, max_model_len=length, cpu_kv_bytes=20 * GIB)

    assert validate_capacity(wanted) is None


@pytest.mark.parametrize(
    ("name", "length", "release", "longest"),
    [
        ("qwen3-4b-yarn", 131072, "0.32.0", 40960),
        ("qwen3-4b", 131072, "0.10.2", 40960),
        ("longchat-linear-rope", 32769, "0.26.0", 32768),
        ("bge-base-en", 513, "0.32.0", 512),
    ],
)
def test_a_length_is_refused_where_vllm_refuses_it(
    tmp_path: Path, name: str, length: int, release: str, longest: int
) -> None:
    model = write_model(tmp_path, model_configs()[name])
    found = validate_capacity(_wanted(model, release=release, max_model_len=length, cpu_kv_bytes=20 * GIB))

    assert found == (
        f"instance 'chat': max_model_len {length} is longer than the model's {longest} in vLLM {release}; "
        f"set {longest} or less"
    )


def test_a_length_that_no_rule_here_gives_is_left_to_vllm(tmp_path: Path) -> None:
    model = write_model(tmp_path, {**LLAMA_8B, "rope_scaling": {"rope_type": "new", "factor": 2.0}})

    assert validate_capacity(_wanted(model, max_model_len=262144, cpu_kv_bytes=64 * GIB)) is None


def test_one_key_and_value_for_all_heads_need_what_one_head_needs(planned: Any) -> None:
    layout = planned(model_configs()["falcon-7b"], max_model_len=2048, available_kv=GIB).layout

    assert layout.bytes_per_token == 2 * 64 * 2 * 32


@pytest.mark.parametrize(("given", "size"), [("4G", 4 << 30), ("4g", 4 * 10**9), ("1.5g", 15 * 10**8), ("1024", 1024)])
def test_numbers_are_read_as_vllms_parser_does(tmp_path: Path, given: str, size: int) -> None:
    model = write_model(tmp_path, LLAMA_8B)
    found = plan_of(_wanted(model, extra_args={"kv-cache-memory-bytes": given}, cpu_kv_bytes=None, gpu_bytes=24 * GIB))

    assert found.budget.available == size


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ({"mamba_d_state": 16}, {}),
        ({"model_type": "new"}, {}),
        ({"num_hidden_layers": None}, {}),
        ({"torch_dtype": "int8"}, {}),
        ({"quantization_config": {"quant_method": "new"}}, {}),
        ({}, {"quantization": "experts_int8"}),
        ({}, {"extra_args": {"kv-cache-memory-bytes": "1.5G"}}),
        ({}, {"extra_args": {"attention-backend": "FLEX_ATTENTION"}}),
        ({}, {"extra_args": {"model-impl": "transformers"}}),
        ({}, {"extra_args": {"cpu-offload-gb": 20}, "cpu_kv_bytes": None, "gpu_bytes": 8 * GIB}),
        ({}, {"extra_args": {"rope-scaling": {"rope_type": "dynamic", "factor": 4.0}}, "release": "0.10.2"}),
        ({}, {"extra_args": {"pipeline-parallel-size": 2}, "cpu_kv_bytes": None, "gpu_bytes": 24 * GIB}),
        ({}, {"release": "0.30.0"}),
        ({}, {"kv_cache_dtype": "nvfp4"}),
        ({}, {"extra_args": {"speculative-config": "{}"}}),
    ],
)
def test_what_cannot_be_computed_is_left_to_vllm(
    tmp_path: Path, config: dict[str, Any], changes: dict[str, Any]
) -> None:
    model = write_model(tmp_path, {**LLAMA_8B, **config})

    assert validate_capacity(_wanted(model, max_model_len=131072, **changes)) is None
