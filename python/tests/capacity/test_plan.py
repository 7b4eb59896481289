"""Whether an instance starts, what it holds, and what to change; and the sentence for preflight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.capacity import (
    GIB,
    CapacityRequest,
    Plan,
    Remedy,
    Settings,
    arithmetic_of,
    plan,
    remedies,
    shape_of,
    validate_capacity,
    weights_of,
)
from rackserve.errors import InputError
from testing.known_models import DEEPSEEK, GEMMA_27B, LLAMA_3B, LLAMA_8B, SMOLLM2, write_model

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
        (SMOLLM2, {"max_model_len": 8193}, "max_model_len 8193 is longer than the model's 8192; set 8192 or less"),
        (LLAMA_3B, {"tensor_parallel": 16}, "tensor_parallel 16 does not divide the model's 24 attention heads"),
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
    ("config", "changes"),
    [
        ({"mamba_d_state": 16}, {}),
        ({}, {"release": "0.31.0"}),
        ({}, {"kv_cache_dtype": "nvfp4"}),
        ({}, {"extra_args": {"speculative-config": "{}"}}),
    ],
)
def test_what_cannot_be_computed_is_left_to_vllm(
    tmp_path: Path, config: dict[str, Any], changes: dict[str, Any]
) -> None:
    model = write_model(tmp_path, {**LLAMA_8B, **config})

    assert validate_capacity(_wanted(model, max_model_len=131072, **changes)) is None
