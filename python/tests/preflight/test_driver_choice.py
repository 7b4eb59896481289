"""Which driver set a host gets by inventory, bundle and what it keeps, and what is wrong with what it asks for."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.bundle import Entry
from rackserve.bundle._manifest import Driver
from rackserve.bundle._recipe import Recipe
from rackserve.gpu import GpuFacts
from rackserve.preflight import (
    EXPORTER_PARTS,
    DriverInputs,
    DriverPlan,
    DriverRequest,
    driver_change,
    find_set,
    package_names,
    parts_for,
    plan_of,
    validate_driver_inputs,
)
from rackserve.preflight._driver import DriverSet
from testing.small_site import MANIFEST, WANTED

if TYPE_CHECKING:
    from pathlib import Path

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


WITH = replace(MANIFEST, drivers=(DRIVER,))
KEPT = {
    "version": "575.1.1",
    "flavour": "open",
    "path": "/var/lib/rackserve/drivers/575.1.1-open/apt",
    "install": ["nvidia-open-kernel-dkms"],
    "packages": {},
    "kernels": ["6.1.0-47-amd64"],
    "names": [],
}
GIVEN = DriverInputs()


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
    assert plan_of(replace(WANTED, **change).driver, WITH, release) == expected


def test_a_kept_set_is_taken_by_its_version_alone() -> None:
    assert find_set(DriverRequest("bundle"), MANIFEST, "12", [KEPT]) is None
    half = {key: value for key, value in KEPT.items() if key != "kernels"}
    assert find_set(DriverRequest("bundle", "575.1.1"), WITH, "12", [half, {}]) is None
    chosen = find_set(DriverRequest("bundle", "575.1.1"), WITH, "12", [half, KEPT])
    assert chosen is not None
    assert (chosen.path, chosen.kept) == (KEPT["path"], True)
    plan = plan_of(DriverRequest("bundle", "575.1.1"), WITH, "12", [KEPT])
    assert plan == DriverPlan("bundle", "575.1.1", "open", ("6.1.0-47-amd64",))
    mine = find_set(DriverRequest("bundle"), WITH, "12", [KEPT])
    assert mine is not None
    assert not mine.kept


def test_a_host_asks_for_its_own_headers_and_for_nvswitches_where_they_are() -> None:
    names = ("nvidia-kernel-dkms", "linux-headers-6.1.0-47-amd64", "linux-headers-6.1.0-56-amd64")
    chosen = DriverSet("580.1", "open", "p", (*names, "nvidia-fabricmanager-580", "libnvidia-nscq-580"), {}, ())
    assert package_names(chosen, ["6.1.0-56-amd64"], nvswitch=False) == [names[0], names[2]]
    assert package_names(chosen, ["6.1.0-56-amd64"], nvswitch=True)[2:] == list(chosen.install[3:])


def test_only_a_host_that_installs_it_is_sent_the_driver() -> None:
    runtime: dict[str, Any] = {"vllm": "0.32.0", "flavour": "cpu", "python": "3.11"}
    assert "drivers/d" in parts_for(WITH, "12", (), **runtime, request=DriverRequest("bundle"))
    assert "drivers/d" not in parts_for(WITH, "12", (), **runtime, request=DriverRequest("preinstalled"))
    assert "drivers/d" not in parts_for(WITH, "12", (), **runtime)


def test_hosts_with_gpus_are_sent_the_exporter_that_the_bundle_has() -> None:
    wheel = Entry("wheels/gpu-exporter/a.whl", 1, "3" * 64)
    carries = replace(WITH, files=(*WITH.files, wheel, Entry("locks/gpu-exporter.txt", 1, "4" * 64)))
    cuda = {"vllm": "0.32.0", "flavour": "cuda", "python": "3.11"}
    request = DriverRequest("bundle")
    assert {*EXPORTER_PARTS} <= set(parts_for(carries, "12", (), **cuda, request=request))
    assert not {*EXPORTER_PARTS} & set(parts_for(WITH, "12", (), **cuda, request=request))
    assert not {*EXPORTER_PARTS} & set(parts_for(carries, "12", (), **{**cuda, "flavour": "cpu"}, request=request))


@pytest.mark.parametrize(
    ("target", "carried"),
    [
        ({"runtimes": [{"vllm": "0.26.0", "flavour": "cuda", "python": "3.11"}]}, True),
        ({"driver": {"flavour": "open", "kernels": ["6.1.0-47-amd64"]}}, True),
        ({"runtimes": [{"vllm": "0.32.0", "flavour": "cpu", "python": "3.11"}]}, False),
    ],
    ids=["CUDA runtime", "driver", "CPU runtime"],
)
def test_a_bundle_for_gpus_carries_the_exporter(target: dict[str, Any], *, carried: bool) -> None:
    recipe = Recipe(name="a", version=1, models=(), targets=({"distribution": "debian", "release": "12", **target},))
    assert recipe.has_gpus == carried
    assert ("gpu-exporter.txt" in {lock.name for lock in recipe.locks}) == carried


def test_an_unavailable_driver_is_refused_with_the_available_ones() -> None:
    (said,) = validate_driver_inputs(DriverRequest("bundle", "535.1"), GIVEN, WITH, "12", [KEPT])
    assert said.startswith("no driver 535.1 for Debian 12: the bundle has 580.95.05 open, the host keeps 575.1.1 open;")
    for request in (
        DriverRequest("bundle"),
        DriverRequest("bundle", "575.1.1"),
        DriverRequest("preinstalled", "535.1"),
    ):
        assert validate_driver_inputs(request, GIVEN, WITH, "12", [KEPT]) == []


def test_an_installer_is_pinned_by_its_hash(tmp_path: Path) -> None:
    request = DriverRequest("runfile", "580.95.05", "open")
    path = tmp_path / "installer.run"
    path.write_bytes(b"#!/bin/sh")
    digest = hashlib.sha256(b"#!/bin/sh").hexdigest()
    assert validate_driver_inputs(request, DriverInputs(runfile=str(path), runfile_sha256=digest), WITH, "12", []) == []
    (wrong,) = validate_driver_inputs(request, DriverInputs(runfile=str(path), runfile_sha256="0" * 64), WITH, "12", [])
    assert wrong == f"{path} has the sha256 {digest}, and nvidia_driver_runfile_sha256 is {'0' * 64}"
    (absent,) = validate_driver_inputs(request, DriverInputs(runfile="/none", runfile_sha256=digest), WITH, "12", [])
    assert absent == "nvidia_driver_runfile: /none does not exist"
    (bare,) = validate_driver_inputs(DriverRequest("runfile"), GIVEN, WITH, "12", [])
    assert bare.endswith("_version, nvidia_driver_modules, nvidia_driver_runfile, nvidia_driver_runfile_sha256")


def test_a_signing_key_comes_with_certificate_and_password(tmp_path: Path) -> None:
    for name in ("key", "der", "hash"):
        (tmp_path / name).touch()
    key, certificate, hashed = (str(tmp_path / name) for name in ("key", "der", "hash"))
    whole = DriverInputs(signing_key=key, signing_certificate=certificate, mok_hash_file=hashed)
    assert validate_driver_inputs(DriverRequest(), whole, WITH, "12", []) == []
    (lacking,) = validate_driver_inputs(DriverRequest(), replace(whole, mok_hash_file=""), WITH, "12", [])
    assert lacking.startswith("nvidia_driver_mok_hash_file is empty")
    (gone,) = validate_driver_inputs(DriverRequest(), replace(whole, signing_key="/none"), WITH, "12", [])
    assert gone == "nvidia_driver_signing_key: /none does not exist"


def test_extras_are_in_the_bundle() -> None:
    assert validate_driver_inputs(DriverRequest(), DriverInputs(extras=["nginx"]), WITH, "12", []) == []
    (said,) = validate_driver_inputs(DriverRequest(), DriverInputs(extras=["datacenter-gpu-manager"]), WITH, "12", [])
    assert "datacenter-gpu-manager is not among the bundle's packages" in said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"gpu": 0, "profiles": ["1g.10gb", "3g.40gb", "1g.10gb+me"]}, ""),
        ({"gpu": 0, "profiles": ["10gb"]}, "nvidia_driver_mig: GPU number 1: profiles.1: String should match pattern"),
        ({"gpu": 0}, "'profiles' is missing; set it"),
        ({"gpu": 0, "profiles": ["1g.10gb"], "profile": 1}, "unknown key 'profile' (found 1), is it 'profiles'?"),
    ],
)
def test_slices_are_named_by_profile(entry: dict[str, Any], said: str) -> None:
    found = validate_driver_inputs(DriverRequest(), DriverInputs(mig=[entry]), WITH, "12", [])
    assert len(found) == bool(said)
    assert not said or said in found[0]


def facts(**changes: Any) -> GpuFacts:
    driver = {"version": "575.1.1", "modules": "open"}
    host = {"kernel": "6.1.0-47-amd64", "glibc": "2.36", **changes}
    return GpuFacts.of({"gpus": [{"bus_id": "0000:01:00.0"}], "driver": driver, "host": host})


def change(would: dict[str, Any], *, placed: bool = False, host: dict[str, Any] | None = None, **asked: Any) -> Any:
    request = {"source": "bundle", **asked}
    expected: dict[str, Any] = {"version": "580.95.05", "modules": "open", "placed": placed, "seconds": 1200}
    return driver_change(facts(**(host or {})), request, would, [KEPT], **expected)


NEW = {"installed": ["nvidia-smi=580.95.05-1"], "current": "575.1.1-open"}
LOADED = "driver 575.1.1 is loaded, 580.95.05 is installed"


def test_another_set_is_a_change_with_a_way_back_and_a_reboot() -> None:
    found = change(NEW)
    assert (found["words"], found["waits"]) == (["driver 575.1.1 -> 580.95.05"], [LOADED])
    assert found["back"] == {"version": "575.1.1", "modules": "open"}
    allowed = change(NEW, reboot_allowed=True)
    assert (allowed["words"][1:], allowed["waits"]) == ([f"reboot: {LOADED}"], [])


@pytest.mark.parametrize(
    ("would", "words"),
    [
        ({**NEW, "current": "580.95.05-open"}, "packages of driver 580.95.05: nvidia-smi=580.95.05-1"),
        ({**NEW, "current": ""}, "driver 575.1.1 -> 580.95.05"),
        ({**NEW, "current": "570.1-open"}, "driver 570.1 -> 580.95.05"),
    ],
    ids=["repaired", "not ours before", "no longer kept"],
)
def test_a_change_without_a_set_to_go_back_to(would: dict[str, Any], words: str) -> None:
    found = change(would)
    assert (found["words"], found["back"]) == ([words], {})


@pytest.mark.parametrize("source", ["bundle", "runfile", "preinstalled"])
def test_what_is_in_place_is_no_change(source: str) -> None:
    found = change({"installed": [], "built": ["6.1.0-48-amd64"], "held": ["dkms"]}, placed=True, source=source)
    assert (found["words"], found["waits"], found["back"]) == ([], [], {})


def test_an_installer_and_a_reboot_are_changes_of_their_own() -> None:
    assert change({}, source="runfile")["words"] == ["driver 575.1.1 -> 580.95.05"]
    pending = {"reboot": ["/run/reboot-required (linux-image-6.1.0-48-amd64)"]}
    assert change({}, host=pending, reboot_allowed=True)["words"] == [f"reboot: {pending['reboot'][0]}, {LOADED}"]
    assert change({}, host=pending, source="preinstalled", reboot_allowed=True)["words"] == []
