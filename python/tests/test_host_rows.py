"""The rows that every host has, and what the inventory's words about the driver come to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rackserve.bundle import Entry
from rackserve.bundle._manifest import Driver
from rackserve.gate import DriverPlan, Verdict
from rackserve.host_rows import driver_plan, memory_row, python_row
from rackserve.instances import parse_instances
from rackserve.releases import release_of
from test_preflight import FIT, INSTANCE, MANIFEST, REVISION, WANTED

DRIVER = Driver(
    release="12",
    flavour="open",
    version="580.95.05",
    path="drivers/d",
    kernels=("6.1.0-47-amd64",),
    install=("nvidia-open-kernel-dkms",),
    packages={"nvidia-fabricmanager-580": "580.95.05-1"},
    missing=(),
)


@pytest.mark.parametrize(
    ("change", "release", "expected"),
    [
        ({}, "12", DriverPlan()),
        (
            {"driver_source": "bundle"},
            "12",
            DriverPlan("bundle", "580.95.05", "open", ("6.1.0-47-amd64",), fabric_manager=True),
        ),
        (
            {"driver_source": "bundle", "driver_reboot_allowed": True, "driver_signed": True},
            "12",
            DriverPlan(
                "bundle", "580.95.05", "open", ("6.1.0-47-amd64",), fabric_manager=True, reboots=True, signs=True
            ),
        ),
        ({"driver_source": "bundle"}, "13", DriverPlan("bundle")),
        (
            {"driver_source": "bundle", "driver_modules": "proprietary"},
            "12",
            DriverPlan("bundle", None, "proprietary"),
        ),
        ({"driver_source": "bundle", "driver_version": "535.1"}, "12", DriverPlan("bundle")),
        (
            {"driver_source": "runfile", "driver_version": "580.95.05", "driver_modules": "open"},
            "12",
            DriverPlan("runfile", "580.95.05", "open"),
        ),
    ],
    ids=["preinstalled", "bundle", "bundle, signed", "other Debian", "other modules", "other version", "runfile"],
)
def test_the_driver_is_planned_by_inventory_and_bundle(
    change: dict[str, Any], release: str, expected: DriverPlan
) -> None:
    assert driver_plan(replace(WANTED, **change), replace(MANIFEST, drivers=(DRIVER,)), release) == expected


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
