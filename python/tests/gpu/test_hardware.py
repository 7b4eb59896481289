"""`gpus.yml` is well formed and agrees with itself and with the releases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from rackserve.gpu import Hardware, KnownGpu, dotted, hardware
from rackserve.vllm import dtype_for, releases

RECORDED = json.loads((Path(__file__).parents[1] / "data/h200/nvml.json").read_text())


def test_every_gpu_is_of_a_listed_generation_and_listed_once() -> None:
    known = hardware()
    assert all(known.generation_of(gpu.capability) for gpu in known.gpus)
    ids = [gpu.id for gpu in known.gpus]
    assert len(ids) == len(set(ids))
    every = [capability for g in known.generations for capability in g.capabilities]
    assert every == sorted(every) or len(every) == len(set(every))


def test_every_row_says_where_it_is_from() -> None:
    known = hardware()
    sources = [entry.source for entry in known.generations] + [entry.source for entry in known.gpus]
    sources += [entry.source for entry in known.attention_backends.values()]
    assert all(sources)


def test_what_auto_stands_for_is_a_type_that_the_generation_has() -> None:
    for generation in hardware().generations:
        for capability in generation.capabilities:
            assert dtype_for(capability) == generation.dtypes[0]


def test_fp8_and_bfloat16_came_with_a_generation_and_stayed() -> None:
    generations = sorted(hardware().generations, key=lambda g: g.capabilities[0])
    assert [g.name for g in generations if "bfloat16" not in g.dtypes] == ["Volta", "Turing"]
    assert [g.name for g in generations if not g.fp8] == ["Volta", "Turing", "Ampere"]


def test_the_measured_gpu_is_listed_as_it_reported() -> None:
    known = hardware().known(f"{RECORDED['PciInfo']['pciDeviceId'] >> 16:04x}")
    assert known is not None
    assert RECORDED["Name"] == f"NVIDIA {known.name}"
    assert list(known.capability) == RECORDED["CudaComputeCapability"]
    assert RECORDED["cuda_total"] <= RECORDED["MemoryInfo"]["total"]


@pytest.mark.parametrize("change", [{"id": "2330 "}, {"capability": "9"}, {"memory": 0}, {"fp8": True}])
def test_a_row_with_a_mistake_is_refused(change: dict[str, object]) -> None:
    row = {"id": "2330", "name": "H100", "capability": "9.0", "memory": 80, "source": "x"}
    assert KnownGpu.model_validate(row)
    with pytest.raises((ValidationError, ValueError)):
        KnownGpu.model_validate({**row, **change})


def test_the_file_has_no_other_parts() -> None:
    assert set(Hardware.model_fields) == {
        *("generations", "gpus", "attention_backends"),
        *("compilers", "open_modules_only", "driver_kernels"),
    }


def test_every_generation_has_its_first_compiler_and_every_kv_cache_a_release() -> None:
    known = hardware()
    assert {dotted(c) for g in known.generations for c in g.capabilities} <= set(known.compilers)
    assert all(known.compilers[dotted(g.capabilities[0])] >= g.cuda.first for g in known.generations if g.cuda.first)
    entries = [entry for backend in known.attention_backends.values() for entry in backend.kv_cache]
    assert {entry.since for entry in entries} <= set(releases())
    types = {name for entry in entries for name in entry.types}
    assert types <= {name for release in releases().values() for name in release.kv_cache_dtypes}


@pytest.mark.parametrize(
    ("driver", "builds", "fails"),
    [
        ("590.48.01", (6, 17), (6, 19)),
        ("580.95.05", (6, 12), (7, 0)),
        ("580.178.04", (7, 1), None),
        ("535.309.01", (6, 1), None),
        ("700.1", None, None),
        ("595.10", None, None),
    ],
)
def test_kernels_of_a_driver_are_those_of_its_branch(
    driver: str, builds: tuple[int, int] | None, fails: tuple[int, int] | None
) -> None:
    newest, oldest = hardware().kernels_of(driver)
    assert (newest and newest.builds, oldest and oldest.fails) == (builds, fails)
