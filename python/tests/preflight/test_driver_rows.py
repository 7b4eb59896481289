"""What keeps a host's driver from serving, before a change and after; the hosts are stand-ins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackserve.preflight import DriverPlan, reboot_reasons, validate_driver, validate_driver_plan
from rackserve.vllm import release_of
from testing.gpus import bare, facts, gpu

if TYPE_CHECKING:
    from rackserve.gpu import GpuFacts


def test_a_driver_that_answers_for_every_gpu_is_fine() -> None:
    assert validate_driver(facts(gpu("H100", 0), gpu("H100", 1)), "580.95.05") == []
    assert validate_driver_plan(facts(gpu("H100", 0)), DriverPlan(), release_of("0.26.0")) == ""


def test_a_driver_that_does_not_fit_is_refused_with_the_table() -> None:
    text = validate_driver_plan(
        facts(gpu("H100", 0), driver="535.183.01", cuda="12.2"), DriverPlan(), release_of("0.26.0")
    )
    assert "580 or newer (CUDA 13 of vLLM 0.26.0)" in text
    assert text.splitlines()[-1].startswith("- driver: install driver 580")


@pytest.mark.parametrize(
    ("found", "version", "problem"),
    [
        (facts(bare("H100", 0), driver=None), "", "it does not answer: libnvidia-ml.so.1 is not on the host"),
        (facts(gpu("H100", 0)), "580.95.06", "580.95.05 answers, and 580.95.06 is wanted"),
        (facts(gpu("H100", 0), bare("H100", 1)), "", "it does not show 0000:11:00.0"),
        (facts(gpu("H100", 0), missing_nodes=["/dev/nvidia-uvm"]), "", "/dev/nvidia-uvm is missing"),
    ],
    ids=["no driver", "another version", "a GPU too few", "no device node"],
)
def test_problems_of_a_driver_are_reported(found: GpuFacts, version: str, problem: str) -> None:
    (said,) = validate_driver(found, version)
    assert said.startswith(problem)


def test_any_xid_speaks_against_a_driver_that_was_just_started() -> None:
    found = facts(gpu("H100", 0), xids=[{"bus_id": "0000:10:00", "code": 79}])
    assert validate_driver(found, fresh=True) == ["Xid since the boot: 79 of 0000:10:00"]
    assert validate_driver(found) == []


@pytest.mark.parametrize(
    ("manager", "said"),
    [
        ({"version": "580.95.05", "state": "active"}, None),
        ({"version": "580.82.07", "state": "active"}, "the fabric manager is 580.82.07, active"),
        ({"version": "580.95.05", "state": "failed"}, "the fabric manager is 580.95.05, failed"),
        ({"version": None, "state": ""}, "the fabric manager is not installed, not running"),
    ],
)
def test_behind_nvswitches_the_fabric_manager_runs_in_the_drivers_version(manager: dict[str, str], said: str) -> None:
    found = facts(gpu("H100", 0), nvswitches=4, fabric_manager=manager)
    assert validate_driver(found) == ([said] if said else [])


def test_a_host_without_a_gpu_is_prepared_where_that_is_wanted() -> None:
    plan = DriverPlan("bundle", "535.309.01", "proprietary", ("6.1.0-56-amd64",))
    empty, release = facts(driver=None), release_of("0.10.2")
    kernels = ["6.1.0-56-amd64"]
    assert validate_driver_plan(empty, plan, release, kernels, gpu_required=False) == ""
    assert "none on the PCI bus" in validate_driver_plan(empty, plan, release, kernels)
    other = validate_driver_plan(empty, plan, release, gpu_required=False)
    assert "not on the host, and the bundle has those of 6.1.0-56-amd64" in other


def test_headers_that_the_host_has_of_a_kernel_to_come_are_enough() -> None:
    plan, kernels = DriverPlan("runfile", "570.86.10", "open"), ["6.1.0-56-amd64"]
    with_them = facts(driver=None, header_kernels=["6.1.0-56-amd64"])
    assert validate_driver_plan(with_them, plan, release_of("0.10.2"), kernels, gpu_required=False) == ""
    without = validate_driver_plan(facts(driver=None), plan, release_of("0.10.2"), kernels, gpu_required=False)
    assert "not on the host, and the bundle has those of no kernel" in without


def test_a_reboot_is_asked_for_by_what_is_loaded() -> None:
    assert reboot_reasons(facts(gpu("H100", 0)), "580.95.05", "open") == []
    assert reboot_reasons(facts(driver=None), "580.95.05", "open") == []
    assert reboot_reasons(facts(gpu("H100", 0)), "580.105.08", "open") == [
        "driver 580.95.05 is loaded, 580.105.08 is installed"
    ]
    assert reboot_reasons(facts(gpu("H100", 0)), "580.95.05", "proprietary") == [
        "the open modules are loaded, the proprietary ones are installed"
    ]
    assert reboot_reasons(facts(bare("H100", 0), driver=None, nouveau=True), "580.95.05", "open") == [
        "nouveau is loaded"
    ]
    pending = facts(gpu("H100", 0), reboot=["driver 580.95.05 is loaded, 580.105.08 is installed"])
    assert reboot_reasons(pending, "580.105.08", "open") == list(pending.host.reboot)
