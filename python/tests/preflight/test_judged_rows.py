"""Rows that judge a version or a state: each fires, is silent, and says what is not known instead of fitting."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rackserve.gpu import GpuFacts
from rackserve.preflight import (
    DriverPlan,
    Host,
    Row,
    Verdict,
    capacity_request,
    compare,
    refused,
    table_of,
    validate_driver,
    validate_service_user,
)
from rackserve.preflight._gpu_table import gpu_rows
from rackserve.preflight._host_rows import service_user_row
from rackserve.preflight._kv_rows import checkpoint_kv_cache
from rackserve.preflight._rows import notes
from rackserve.preflight._types import PreflightResult
from rackserve.vllm import parse_instances, release_of
from testing.gpus import bare, facts, gpu, slice_of
from testing.small_site import FIT, MANIFEST, WANTED

RAW = {"name": "a", "model": {"repo": "o/m", "revision": "0" * 40}, "max_num_seqs": 4, "max_model_len": 128}
RIGHT = {"version": "580.95.05", "state": "active"}


def rows_of(
    found: GpuFacts, vllm: str = "0.32.0", plan: DriverPlan | None = None, *, cached: bool = False, **keys: Any
) -> list[Row]:
    instances = parse_instances([{**RAW, "gpus": [0], **keys}])
    return gpu_rows(found, instances, release_of(vllm), plan or DriverPlan(), cached_kernels=cached)


def row_of(what: str, *args: Any, **keys: Any) -> Row | None:
    return next((row for row in rows_of(*args, **keys) if row.what == what), None)


def verdict_of(what: str, *args: Any, **keys: Any) -> Verdict | None:
    row = row_of(what, *args, **keys)
    return row.verdict if row else None


NVCC = "a: compiler for GPUs"
FLASHINFER = {"attention-backend": "FLASHINFER"}


@pytest.mark.parametrize(
    ("kind", "vllm", "nvcc", "verdict"),
    [
        ("H100", "0.32.0", "11.5", Verdict.REFUSED),
        ("H100", "0.32.0", "12.9", Verdict.REFUSED),
        ("H100", "0.32.0", "13.0", Verdict.FITS),
        ("H100", "0.32.0", "13.2", Verdict.FITS),
        ("H100", "0.32.0", "14.0", Verdict.UNKNOWN),
        ("H100", "0.32.0", "", Verdict.UNKNOWN),
        ("H100", "0.32.0", None, Verdict.REFUSED),
        ("H100", "0.10.2", "11.5", Verdict.REFUSED),
        ("H100", "0.10.2", "12.8", Verdict.FITS),
        ("H100", "0.10.2", "12.4", Verdict.UNKNOWN),
        ("B200", "0.10.2", "12.6", Verdict.REFUSED),
        ("B200", "0.10.2", "12.8", Verdict.FITS),
    ],
)
def test_nvcc_is_judged_by_the_wheels_and_by_the_gpu(kind: str, vllm: str, nvcc: str | None, verdict: Verdict) -> None:
    host = facts(gpu(kind, 0, fabric="completed"), nvcc=nvcc, fabric_manager=RIGHT)
    assert verdict_of(NVCC, host, vllm, extra_args=FLASHINFER) is verdict
    assert verdict_of(NVCC, host, vllm, extra_args=FLASHINFER, cached=True) is Verdict.FITS


def test_an_nvcc_that_is_too_old_says_so_and_what_to_install() -> None:
    row = row_of(NVCC, facts(gpu("H100", 0), nvcc="11.5"), extra_args=FLASHINFER)
    assert row is not None
    assert row.found == "nvcc 11.5, and compute capability 9.0 needs 11.8"
    assert row.fix.endswith("or install nvcc 13.0")


def test_a_compiler_that_nobody_asked_for_is_a_warning_where_it_would_break() -> None:
    assert verdict_of(NVCC, facts(gpu("H100", 0), nvcc="11.5")) is Verdict.WARNING
    assert verdict_of(NVCC, facts(gpu("H100", 0), nvcc="13.0")) is None
    assert verdict_of(NVCC, facts(gpu("H100", 0))) is None
    assert verdict_of(NVCC, facts(gpu("H100", 0), nvcc="11.5"), cached=True) is None
    assert verdict_of(NVCC, facts(gpu("H100", 0), nvcc="11.5"), "0.10.2") is None


@pytest.mark.parametrize(
    ("driver", "kernel", "verdict"),
    [
        ("590.48.01", "7.0.0-1-amd64", Verdict.WARNING),
        ("590.48.01", "6.12.57+deb13-amd64", Verdict.FITS),
        ("590.48.01", "6.18.1", Verdict.UNKNOWN),
        ("535.309.01", "7.0.0", Verdict.UNKNOWN),
        ("535.309.01", "6.1.0-56-amd64", Verdict.FITS),
        ("580.119.02", "7.0.9-1-cachyos", Verdict.WARNING),
        ("580.178.04", "7.1.2", Verdict.FITS),
        ("620.10", "6.1.0", Verdict.UNKNOWN),
        ("580.95.05", "custom", None),
    ],
)
def test_a_kernel_is_judged_by_what_the_driver_is_known_to_build_on(
    driver: str, kernel: str, verdict: Verdict | None
) -> None:
    plan = DriverPlan("bundle", driver, "open", (kernel,))
    assert verdict_of("kernel", facts(bare("H100", 0), driver=None, kernel=kernel), plan=plan) is verdict


def test_a_driver_that_is_there_is_not_built_and_its_kernel_not_judged() -> None:
    assert verdict_of("kernel", facts(gpu("H100", 0), kernel="7.9.0")) is None
    same = DriverPlan("bundle", "580.95.05", "open", ("7.9.0",))
    assert verdict_of("kernel", facts(gpu("H100", 0), kernel="7.9.0"), plan=same) is None


@pytest.mark.parametrize(
    ("version", "flavour", "verdict"),
    [
        ("615.71.09", "proprietary", Verdict.REFUSED),
        ("620.10.01", "proprietary", Verdict.REFUSED),
        ("615.71.09", "open", Verdict.FITS),
        ("615.71.09", None, Verdict.UNKNOWN),
        ("610.57.04", "proprietary", None),
    ],
)
def test_r615_and_later_have_open_modules_only(version: str, flavour: str | None, verdict: Verdict | None) -> None:
    plan = DriverPlan("runfile", version, flavour)
    assert verdict_of("kernel modules", facts(bare("H100", 0), driver=None), plan=plan) is verdict


def test_volta_has_no_modules_in_r615_and_a_driver_that_answers_is_believed() -> None:
    plan = DriverPlan("runfile", "615.71.09", "proprietary")
    row = row_of("kernel modules", facts(bare("V100", 0), driver=None), "0.10.2", plan)
    assert row is not None
    assert (row.verdict, row.found) == (Verdict.REFUSED, "driver 615 and later have none")
    there = facts(gpu("H100", 0), driver="615.71.09", cuda="13.3", modules="proprietary")
    assert verdict_of("kernel modules", there) is None


@pytest.mark.parametrize(
    ("fabric", "fits"),
    [
        ("completed", True),
        ("in progress", False),
        ("not started", False),
        ("failed: unknown error", False),
        ("not supported", True),
        (None, True),
        ("state 9", True),
    ],
)
def test_the_fabrics_state_is_judged_beside_the_manager(fabric: str | None, *, fits: bool) -> None:
    host = facts(gpu("H100", 0, fabric=fabric), nvswitches=4, fabric_manager=RIGHT)
    row = row_of("fabric manager", host)
    assert row is not None
    assert row.verdict is (Verdict.FITS if fits else Verdict.REFUSED)
    assert (f"0000:10:00.0 {fabric}" in row.found) is not fits
    assert row_of("fabric manager", facts(gpu("H100", 0, fabric="completed"))) is None
    problems = validate_driver(host)
    assert any("the fabric of 0000:10:00.0 failed" in problem for problem in problems) is (fabric or "").startswith("f")


KV = "a: KV cache"


@pytest.mark.parametrize(
    ("kind", "vllm", "dtype", "nvcc", "verdict"),
    [
        ("T4", "0.32.0", "fp8", None, Verdict.REFUSED),
        ("T4", "0.32.0", "fp8", "13.0", Verdict.REFUSED),
        ("T4", "0.26.0", "fp8_e5m2", None, Verdict.REFUSED),
        ("T4", "0.32.0", "nvfp4", None, Verdict.REFUSED),
        ("T4", "0.32.0", "int8_per_token_head", None, Verdict.FITS),
        ("T4", "0.32.0", "bfloat16", None, Verdict.REFUSED),
        ("T4", "0.22.1", "bfloat16", None, Verdict.UNKNOWN),
        ("T4", "0.32.0", "float16", None, None),
        ("T4", "0.32.0", "auto", None, None),
        ("T4", "0.32.0", None, None, None),
        ("T4", "0.10.2", "fp8", None, Verdict.UNKNOWN),
        ("A10", "0.32.0", "fp8", None, Verdict.REFUSED),
        ("A10", "0.32.0", "fp8", "13.0", Verdict.UNKNOWN),
        ("A10", "0.32.0", "fp8", "11.5", Verdict.REFUSED),
        ("A10", "0.32.0", "fp8_per_token_head", "13.0", Verdict.REFUSED),
        ("A10", "0.32.0", "nvfp4", None, Verdict.REFUSED),
        ("A10", "0.32.0", "nvfp4", "13.0", Verdict.FITS),
        ("A10", "0.26.0", "nvfp4", "13.0", Verdict.REFUSED),
        ("A10", "0.32.0", "bfloat16", None, Verdict.FITS),
        ("H100", "0.32.0", "fp8", None, Verdict.FITS),
        ("H100", "0.22.1", "fp8_e4m3", None, Verdict.FITS),
        ("H100", "0.32.0", "nvfp4_4over6", "13.0", Verdict.REFUSED),
        ("B200", "0.32.0", "nvfp4_4over6", "13.0", Verdict.FITS),
        ("B200", "0.26.0", "nvfp4", None, Verdict.REFUSED),
        ("H100", "0.32.0", "turboquant_k8v4", None, Verdict.UNKNOWN),
        ("H100", "0.32.0", "fp8_ds_mla", None, Verdict.UNKNOWN),
    ],
)
def test_a_kv_cache_type_is_judged_by_gpu_release_and_backend(
    kind: str, vllm: str, dtype: str | None, nvcc: str | None, verdict: Verdict | None
) -> None:
    host = facts(gpu(kind, 0, fabric="completed"), nvcc=nvcc, fabric_manager=RIGHT)
    assert verdict_of(KV, host, vllm, kv_cache_dtype=dtype) is verdict


@pytest.mark.parametrize(
    ("backend", "verdict"),
    [
        ("TRITON_ATTN", Verdict.FITS),
        ("triton_attn", Verdict.FITS),
        ("FLEX_ATTENTION", Verdict.REFUSED),
        ("FLASH_ATTN", Verdict.REFUSED),
        ("NEW", Verdict.UNKNOWN),
    ],
)
def test_a_named_backend_is_asked_alone(backend: str, verdict: Verdict) -> None:
    ada = gpu("A10", 0, capability=[8, 9], device_id="27b8", name="NVIDIA L4")
    asked = {"attention-backend": backend}
    assert verdict_of(KV, facts(ada), kv_cache_dtype="fp8", extra_args=asked) is verdict


MODELOPT = {"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"}
FLOAT = {"type": "float", "num_bits": 8, "dynamic": False}


@pytest.mark.parametrize(
    ("quantization", "stored"),
    [
        (MODELOPT, "fp8_e4m3"),
        ({**MODELOPT, "kv_cache_quant_algo": "NVFP4"}, "nvfp4"),
        ({**MODELOPT, "kv_cache_quant_algo": "INT8"}, None),
        ({"quant_method": "modelopt_fp4", "quantization": {"kv_cache_quant_algo": "FP8"}}, "fp8_e4m3"),
        ({"quant_method": "modelopt", "kv_cache_scheme": FLOAT}, "fp8_e4m3"),
        ({"quant_method": "modelopt", "kv_cache_scheme": {**FLOAT, "dynamic": True}}, None),
        ({"quant_method": "modelopt", "kv_cache_scheme": {"type": "float", "num_bits": 4}}, "nvfp4"),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": FLOAT}, "fp8"),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": None}, None),
        ({"quant_method": "awq"}, None),
        ("nonsense", None),
        (None, None),
    ],
)
def test_a_checkpoint_may_ask_for_a_type_of_the_kv_cache(quantization: Any, stored: str | None) -> None:
    assert checkpoint_kv_cache({"quantization_config": quantization}) == stored
    assert checkpoint_kv_cache({}) is None


def test_a_type_that_the_checkpoint_asks_for_is_judged_unless_another_is_set(tmp_path: Path) -> None:
    folder = tmp_path / MANIFEST.models[0].path
    folder.mkdir(parents=True)
    wanted = replace(WANTED, flavour="cuda", instances=({**RAW, "gpus": [0]},))
    t4, h100 = (Host("gpu1", FIT, facts(gpu(kind, 0))) for kind in ("T4", "H100"))

    def row(host: Host, **keys: Any) -> Row | None:
        spec = replace(wanted, instances=({**wanted.instances[0], **keys},))
        return next((row for row in compare(spec, MANIFEST, host, tmp_path).rows if row.what == KV), None)

    assert row(t4) is None
    (folder / "config.json").write_text("[]")
    assert row(t4) is None
    (folder / "config.json").write_text(json.dumps({"quantization_config": MODELOPT}))
    found = row(t4)
    assert found is not None
    assert (found.verdict, found.fix.split(",")[0]) == (Verdict.REFUSED, "set kv_cache_dtype: float16")
    assert row(t4, kv_cache_dtype="float16") is None
    fits = row(h100)
    assert fits is not None
    assert fits.verdict is Verdict.FITS


def test_the_oldest_gpu_of_an_instance_decides() -> None:
    both = facts(gpu("A10", 0), gpu("H100", 1))
    assert verdict_of(KV, both, kv_cache_dtype="fp8", gpus=[0, 1]) is Verdict.REFUSED
    unknown = facts({"bus_id": "0000:10:00.0", "device_id": "ffff"}, driver=None)
    assert verdict_of(KV, unknown, kv_cache_dtype="fp8") is None


@pytest.mark.parametrize(
    ("kind", "vllm", "advised"),
    [
        ("V100", "0.10.2", False),
        ("T4", "0.32.0", False),
        ("T4", "0.10.2", False),
        ("A10", "0.32.0", False),
        ("A100", "0.22.1", False),
        ("H100", "0.32.0", True),
        ("B200", "0.10.2", True),
    ],
)
def test_an_fp8_cache_is_advised_only_where_a_gpu_stores_it(kind: str, vllm: str, *, advised: bool) -> None:
    (instance,) = parse_instances([{**RAW, "gpus": [0]}])
    for host in (facts(gpu(kind, 0)), facts(bare(kind, 0), driver=None)):
        asked = capacity_request(instance, Path("m"), vllm=vllm, flavour="cuda", cpu_kvcache_gib=0, gpus=host)
        assert asked is not None
        assert asked.fp8_kv_cache is advised
    cpu = capacity_request(instance, Path("m"), vllm=vllm, flavour="cpu", cpu_kvcache_gib=1, gpus=None)
    assert cpu is not None
    assert cpu.fp8_kv_cache


MEMORY = "host memory"


@pytest.mark.parametrize(
    ("extra", "gib"),
    [
        ({"kv-offloading-size": 300}, 300),
        ({"kv-offloading-size": "300"}, 300),
        ({"kv-offloading-size": 300, "kv-offloading-backend": "lmcache"}, 0),
        ({"cpu-offload-gb": 150.5}, 150.5),
        ({"swap-space": 64}, 64),
        ({"mm-processor-cache-gb": 100}, 0),
        ({"kv-transfer-config": {"kv_connector_extra_config": {"cpu_bytes_to_use": 1 << 40}}}, 1024),
        ({"kv-transfer-config": {"kv_connector_extra_config": {"cpu_bytes_to_use": "much"}}}, 0),
        ({"kv-transfer-config": "{}"}, 0),
        ({"kv-offloading-size": "inf"}, 0),
        ({"kv-offloading-size": True}, 0),
        ({"cpu-offload-gb": -5}, 0),
        ({"kv-offloading-size": 100, "cpu-offload-gb": 10}, 110),
        ({}, 0),
    ],
)
def test_what_instances_move_to_the_host_fits_its_memory(extra: dict[str, Any], gib: float) -> None:
    assert verdict_of(MEMORY, facts(gpu("H100", 0), memory=0), extra_args=extra) is (Verdict.UNKNOWN if gib else None)
    if gib:
        enough, less = int(gib * (1 << 30)), int(gib * (1 << 30)) - 1
        assert verdict_of(MEMORY, facts(gpu("H100", 0), memory=enough), extra_args=extra) is Verdict.FITS
        row = row_of(MEMORY, facts(gpu("H100", 0), memory=less), extra_args=extra)
        assert row is not None
        assert row.verdict is Verdict.REFUSED
        assert row.wanted.startswith(f"{gib:.1f} GiB (a: ")


def test_every_gpu_of_every_instance_counts() -> None:
    host = facts(gpu("H100", 0), gpu("H100", 1), memory=125 << 30)
    both = {"gpus": [0, 1], "extra_args": {"cpu-offload-gb": 60}}
    row = row_of(MEMORY, host, **both)
    assert row is not None
    assert (row.verdict, row.wanted) == (
        Verdict.FITS,
        "121.5 GiB (a: weight offload 120.0, a: shared memory 1.5)",
    )
    two = parse_instances([{**RAW, **both}, {**RAW, "name": "b", "gpus": [0], "extra_args": {"kv-offloading-size": 9}}])
    found = gpu_rows(host, two, release_of("0.32.0"), DriverPlan(), cached_kernels=False)
    assert [row.verdict for row in found if row.what == MEMORY] == [Verdict.REFUSED]


@pytest.mark.parametrize(("gib", "verdict"), [(1, Verdict.REFUSED), (2, Verdict.FITS), (0, Verdict.UNKNOWN)])
def test_shared_memory_of_several_gpus_fits_the_hosts(gib: int, verdict: Verdict) -> None:
    host = facts(gpu("H100", 0), gpu("H100", 1), memory=gib << 30)
    assert verdict_of("shared memory", host, gpus=[0, 1]) is verdict
    assert verdict_of("shared memory", host, gpus=[1]) is None


PEERS = "a: GPU to GPU"
CLEAN = {"acs_redirect": False, "iommu": "identity"}


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (CLEAN, CLEAN, Verdict.FITS),
        ({**CLEAN, "iommu": ""}, {**CLEAN, "iommu": ""}, Verdict.FITS),
        ({**CLEAN, "acs_redirect": True}, CLEAN, Verdict.WARNING),
        (CLEAN, {**CLEAN, "iommu": "DMA"}, Verdict.WARNING),
        (CLEAN, {**CLEAN, "iommu": "DMA-FQ"}, Verdict.WARNING),
        (CLEAN, {**CLEAN, "iommu": None}, Verdict.UNKNOWN),
        ({**CLEAN, "acs_redirect": None}, CLEAN, Verdict.UNKNOWN),
        ({**CLEAN, "acs_redirect": True, "nvlinks": None}, CLEAN, Verdict.UNKNOWN),
        ({"acs_redirect": True, "nvlinks": 4}, {"acs_redirect": True, "nvlinks": 4}, None),
        ({"acs_redirect": True, "nvlinks": 4}, {"acs_redirect": True, "nvlinks": 0}, Verdict.WARNING),
    ],
)
def test_acs_and_iommu_between_gpus_without_nvlink_are_a_warning(
    first: dict[str, Any], second: dict[str, Any], verdict: Verdict | None
) -> None:
    pair = facts(gpu("A10", 0, **first), gpu("A10", 1, **second))
    row = row_of(PEERS, pair, gpus=[0, 1])
    assert (row.verdict if row else None) is verdict
    assert refused([row] if row else []) == []
    if verdict is Verdict.WARNING and row:
        assert "iommu=pt" in row.fix
        assert "NCCL_P2P_DISABLE=1" in row.fix


def test_gpus_that_exchange_nothing_have_no_way_to_judge() -> None:
    pair = facts(gpu("A10", 0, acs_redirect=True), gpu("A10", 1, acs_redirect=True))
    keys: dict[str, Any] = {"gpus": [0, 1], "tensor_parallel_size": 1}
    assert verdict_of(PEERS, pair, **keys, extra_args={"data-parallel-size": 2}) is None
    assert verdict_of(PEERS, pair, **keys, extra_args={"pipeline-parallel-size": 2}) is Verdict.WARNING


def test_one_gpu_a_slice_and_a_host_without_a_driver_have_no_peers() -> None:
    bad = {"acs_redirect": True, "iommu": "DMA"}
    assert verdict_of(PEERS, facts(gpu("A10", 0, **bad), gpu("A10", 1, **bad)), gpus=[1]) is None
    cut = gpu("A100", 0, mig=True, slices=[{"uuid": slice_of(1), "memory": 20 << 30}], **bad)
    assert verdict_of(PEERS, facts(cut), gpus=[slice_of(1)]) is None
    assert verdict_of(PEERS, facts(bare("A10", 0), bare("A10", 1), driver=None), gpus=[0, 1]) is None


@pytest.mark.parametrize(
    ("uid", "removes", "verdict"),
    [
        (None, True, None),
        (998, True, Verdict.FITS),
        (999, True, Verdict.FITS),
        (1000, True, Verdict.REFUSED),
        (1000, False, Verdict.FITS),
        (5001, True, Verdict.REFUSED),
    ],
)
def test_a_login_user_named_vllm_loses_its_ipc_at_logout(
    uid: int | None, verdict: Verdict | None, *, removes: bool
) -> None:
    row = service_user_row(uid, removes_ipc=removes)
    assert (row.verdict if row else None) is verdict
    if verdict is Verdict.REFUSED and row:
        assert "RemoveIPC=no" in row.fix
    problems = validate_service_user({"vllm_uid": uid, "removes_ipc": removes})
    assert [problem.split(",")[0] for problem in problems] == (
        [f"user vllm has the user id {uid}"] if verdict is Verdict.REFUSED else []
    )


def test_a_serving_host_with_such_a_user_is_refused(tmp_path: Path) -> None:
    login = replace(FIT, vllm_uid=1001, removes_ipc=True)
    found = compare(WANTED, MANIFEST, Host("gpu1", login), tmp_path)
    assert [row.what for row in refused(found.rows)] == ["user vllm"]
    edge = compare(replace(WANTED, serves=False, instances=()), MANIFEST, Host("edge1", login), tmp_path)
    assert "user vllm" not in {row.what for row in edge.rows}


@pytest.mark.parametrize("field", ["name", "uuid", "memory", "capability", "mig", "ecc", "fabric", "nvlinks"])
def test_a_value_that_nvml_did_not_give_is_told_and_refuses_nothing(field: str) -> None:
    odd = gpu("H100", 0, **{field: None, "unread": {field: "nvml…: unknown error"}})
    found = rows_of(facts(odd))
    assert refused(found) == []
    row = next(row for row in found if row.what == "values of NVML")
    assert (row.verdict, row.found) == (Verdict.UNKNOWN, f"{field} of 0000:10:00.0 (nvml…: unknown error)")
    assert validate_driver(facts(odd)) == []
    assert row_of("values of NVML", facts(gpu("H100", 0))) is None


@pytest.mark.parametrize(("version", "cuda"), [("580.95.05", None), (None, "13.0")])
def test_a_driver_that_answers_without_a_version_is_not_taken_for_dead(version: str | None, cuda: str | None) -> None:
    base = facts(gpu("H100", 0)).model_dump(exclude={"driver"})
    driver = {"version": version, "cuda": cuda, "modules": "open", "unread": {"cuda": "unknown error"}}
    found = GpuFacts.of({**base, "driver": driver})
    assert refused(rows_of(found)) == []
    assert validate_driver(found, "580.95.05") == []


def test_a_gpu_that_the_driver_cannot_open_is_refused_with_its_reason() -> None:
    lost = {**bare("H100", 1), "problem": "nvmlDeviceGetHandleByIndex_v2: a GPU has fallen off the bus"}
    (row,) = refused(rows_of(facts(gpu("H100", 0), lost)))
    assert row.found == "without 0000:11:00.0 (nvmlDeviceGetHandleByIndex_v2: a GPU has fallen off the bus)"
    assert "fallen off the bus" in validate_driver(facts(gpu("H100", 0), lost))[0]


def test_an_odd_glibc_is_not_known() -> None:
    assert verdict_of("glibc", facts(gpu("H100", 0), glibc="")) is Verdict.UNKNOWN


def test_a_slice_without_a_size_has_no_size() -> None:
    cut = facts(gpu("A100", 0, mig=True, slices=[{"uuid": slice_of(1), "memory": None}]))
    assert refused(rows_of(cut, gpus=[slice_of(1)])) == []


def test_what_refuses_nothing_is_told_once_and_a_table_has_it_instead() -> None:
    found = rows_of(facts(gpu("H100", 0), nvcc="11.5"))
    (note,) = notes(found)
    assert note.startswith("a: compiler for GPUs: nvcc 11.5, and compute capability 9.0 needs 11.8 (warning; wanted: ")
    assert PreflightResult([], found).notes == [note]
    worse = rows_of(facts(gpu("H100", 0), nvcc="11.5", nouveau=True))
    result = PreflightResult([], worse)
    assert result.notes == []
    lines = table_of(worse).splitlines()
    assert [line.split()[-1] for line in lines[2:4]] == ["refused", "warning"]
    assert lines[-1].startswith("- a: compiler for GPUs: install nvcc 13.0")
    assert notes(rows_of(facts(gpu("H100", 0)))) == []
