"""The rows that every host has."""

from __future__ import annotations

from dataclasses import replace

from rackserve.bundle import Entry
from rackserve.preflight import Verdict
from rackserve.preflight._host_rows import memory_row, python_row
from rackserve.vllm import parse_instances, release_of
from testing.small_site import FIT, INSTANCE, MANIFEST, REVISION, WANTED


def test_a_python_that_the_release_does_not_run_on_is_refused() -> None:
    facts = replace(FIT, pythons={"3.9": "/usr/bin/python3.9", "3.11": "/usr/bin/python3.11"})
    row = python_row(replace(WANTED, python="3.9"), facts, release_of("0.32.0"))
    assert (row.verdict, row.wanted) == (Verdict.REFUSED, "3.11 or newer, below 3.15 (vLLM 0.32.0)")
    assert python_row(WANTED, facts, release_of("0.32.0")).verdict is Verdict.FITS


def test_weights_and_caches_of_a_cpu_host_fit_its_memory() -> None:
    weights = Entry(f"models/o--m/{REVISION}/model.safetensors", 3 << 30, "2" * 64)
    manifest = replace(MANIFEST, files=(*MANIFEST.files, weights))
    instances = parse_instances([INSTANCE, {**INSTANCE, "name": "b"}])
    small = memory_row(instances, manifest, 1, 7 << 30)
    assert small is not None
    assert (small.verdict, small.wanted, small.found) == (
        Verdict.REFUSED,
        "8.0 GiB (weights, KV cache)",
        "7.0 GiB",
    )
    large = memory_row(instances, manifest, 1, 8 << 30)
    assert large is not None
    assert large.verdict is Verdict.FITS
    assert memory_row(instances, manifest, 1, 0) is None
