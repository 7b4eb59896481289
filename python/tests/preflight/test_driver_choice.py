"""Which driver set a host gets by inventory, bundle and what it keeps, and what is wrong with what it asks for."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.bundle import Entry
from rackserve.bundle._manifest import Driver
from rackserve.bundle._recipe import Recipe
from rackserve.preflight import (
    EXPORTER_PARTS,
    DriverInputs,
    DriverPlan,
    DriverRequest,
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
