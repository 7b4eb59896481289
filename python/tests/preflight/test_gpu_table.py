"""Every refusal of the gate fires where it must and keeps silent where it must not; the hosts are stand-ins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackserve.gpu import GpuFacts, cuda_bytes_of, visible_devices
from rackserve.preflight import DriverPlan, Verdict, refused, table_of
from rackserve.preflight._gpu_table import gpu_rows, group_row
from rackserve.vllm import parse_instances, release_of
from testing.gpus import bare, facts, gpu, slice_of, uuid_of

if TYPE_CHECKING:
    from rackserve.preflight import Row

BUNDLE = DriverPlan("bundle", "580.95.05", "open", ("6.1.0-47-amd64",))


def rows(found: GpuFacts, vllm: str, plan: DriverPlan | None = None, *, cached: bool = False, **keys: Any) -> list[Row]:
    raw = {"name": "a", "model": {"repo": "o/m", "revision": "0" * 40}, "max_num_seqs": 4, "max_model_len": 128}
    instances = parse_instances([{**raw, "gpus": [0], **keys}])
    return gpu_rows(found, instances, release_of(vllm), plan or DriverPlan(), cached_kernels=cached)


def only(found: list[Row]) -> Row:
    (row,) = refused(found)
    return row


def test_an_h100_with_driver_535_is_refused_for_0_26() -> None:
    found = facts(gpu("H100", 0), driver="535.183.01", cuda="12.2", modules="proprietary")
    row = only(rows(found, "0.26.0"))
    assert (row.what, row.wanted) == ("driver", "580 or newer (CUDA 13 of vLLM 0.26.0)")
    assert row.found == "535.183.01, CUDA 12.2"
    assert row.fix == "install driver 580, or set stack_runtime.vllm to one of 0.6.4.post1, 0.10.2"
    assert refused(rows(facts(gpu("H100", 0)), "0.26.0")) == []


def test_an_a100_with_driver_550_runs_0_10_2() -> None:
    found = facts(gpu("A100", 0), driver="550.163.01", cuda="12.4", modules="proprietary")
    assert refused(rows(found, "0.10.2")) == []
    assert only(rows(found, "0.32.0")).what == "driver"


def test_a_driver_that_speaks_an_older_cuda_than_its_branch_is_refused() -> None:
    row = only(rows(facts(gpu("H100", 0), cuda="12.8"), "0.26.0"))
    assert row.found == "580.95.05, CUDA 12.8"
    assert row.fix.startswith("another driver's libraries")


def test_turing_has_no_bfloat16() -> None:
    row = only(rows(facts(gpu("T4", 0)), "0.26.0", dtype="bfloat16"))
    assert (row.what, row.found) == ("a: dtype", "Turing has float16, float32")
    assert "set dtype: float16" in row.fix
    for dtype in ("auto", "float16"):
        assert refused(rows(facts(gpu("T4", 0)), "0.26.0", dtype=dtype)) == []


def test_blackwell_wants_open_modules() -> None:
    row = only(rows(facts(gpu("B200", 0, fabric="completed"), modules="proprietary"), "0.26.0"))
    assert (row.what, row.wanted, row.found) == ("kernel modules", "open (Blackwell)", "proprietary")
    assert refused(rows(facts(gpu("B200", 0, fabric="completed")), "0.26.0")) == []
    planned = DriverPlan("bundle", "580.95.05", "proprietary", ("6.1.0-47-amd64",), fabric_manager=True)
    assert only(rows(facts(bare("B200", 0), driver=None), "0.26.0", planned)).fix == "set nvidia_driver_modules: open"


def test_blackwell_wants_wheels_of_a_cuda_that_knows_it() -> None:
    row = only(rows(facts(gpu("B200", 0, fabric="completed")), "0.6.4.post1"))
    assert (row.what, row.found) == ("a: wheels", "CUDA 12.4 of vLLM 0.6.4.post1")
    assert row.fix == "set stack_runtime.vllm to one of 0.10.2, 0.22.1, 0.26.0, 0.31.0, 0.32.0, 0.33.0"
    assert refused(rows(facts(gpu("B200", 0, fabric="completed")), "0.10.2")) == []


def test_volta_wants_proprietary_modules_an_old_driver_and_an_old_cuda() -> None:
    newest = facts(gpu("V100", 0), driver="590.44.01", modules="open")
    assert {row.what for row in refused(rows(newest, "0.26.0"))} == {
        "driver",
        "kernel modules",
        "a: compute capability",
    }
    row = only(rows(facts(gpu("V100", 0), modules="proprietary"), "0.26.0"))
    assert (row.wanted, row.found) == ("7.5 or newer (CUDA 13)", "7.0")
    fitting = facts(gpu("V100", 0), driver="550.163.01", cuda="12.4", modules="proprietary")
    assert refused(rows(fitting, "0.10.2")) == []


@pytest.mark.parametrize(
    ("manager", "found"),
    [
        ({"version": "580.82.07", "state": "active"}, "580.82.07, running"),
        ({"version": "580.95.05", "state": "failed"}, "580.95.05, failed"),
        ({"version": None, "state": ""}, "none"),
    ],
)
def test_nvswitches_want_the_fabric_manager_of_the_drivers_version(manager: dict[str, Any], found: str) -> None:
    row = only(rows(facts(gpu("H100", 0), nvswitches=4, fabric_manager=manager), "0.26.0"))
    assert (row.what, row.wanted, row.found) == ("fabric manager", "580.95.05, running (NVSwitch)", found)
    assert "580.95.05" in row.fix


def test_the_right_fabric_manager_and_no_nvswitch_are_let_through() -> None:
    right = {"version": "580.95.05", "state": "active"}
    assert refused(rows(facts(gpu("H100", 0), nvswitches=4, fabric_manager=right), "0.26.0")) == []
    assert refused(rows(facts(gpu("H100", 0)), "0.26.0")) == []
    carried = DriverPlan("bundle", "580.95.05", "open", ("6.1.0-47-amd64",), fabric_manager=True)
    assert refused(rows(facts(bare("H100", 0), driver=None, nvswitches=4), "0.26.0", carried)) == []


@pytest.mark.parametrize("one", [bare("B200", 0), gpu("B200", 0, fabric="in progress")])
def test_nvswitches_that_the_bus_does_not_show_are_known_by_the_gpu(one: dict[str, Any]) -> None:
    found = facts(one, driver=None) if "uuid" not in one else facts(one)
    assert "fabric manager" in {row.what for row in refused(rows(found, "0.26.0", BUNDLE))}


def test_a_pending_reboot_is_refused_unless_the_role_may_reboot() -> None:
    moved = facts(gpu("H100", 0), reboot=["driver 580.82.07 is loaded, 580.95.05 is installed"])
    row = only(rows(moved, "0.26.0"))
    assert (row.what, row.found) == ("pending reboot", "driver 580.82.07 is loaded, 580.95.05 is installed")
    assert only(rows(moved, "0.26.0", BUNDLE)).fix.endswith("or set nvidia_driver_reboot_allowed: true")
    allowed = DriverPlan("bundle", "580.95.05", "open", ("6.1.0-47-amd64",), reboots=True)
    assert refused(rows(moved, "0.26.0", allowed)) == []


def test_a_partitioned_gpu_is_named_by_mig_instance() -> None:
    cut = gpu("A100", 0, mig=True, slices=[{"uuid": slice_of(1), "memory": 20 << 30}])
    row = only(rows(facts(cut), "0.26.0"))
    assert row.what == "a: MIG"
    assert slice_of(1) in row.fix
    assert refused(rows(facts(cut), "0.26.0", gpus=[slice_of(1)])) == []
    assert "0.22.1 takes no UUIDs" in only(rows(facts(cut), "0.22.1", gpus=[slice_of(1)])).fix
    row = only(rows(facts(cut, gpu("A100", 1)), "0.26.0", gpus=[slice_of(1), uuid_of(1)]))
    assert row.wanted == "one MIG instance alone"


def test_an_instance_has_gpus_of_one_kind() -> None:
    row = only(rows(facts(gpu("A100", 0), gpu("H100", 1)), "0.26.0", gpus=[0, 1]))
    assert (row.what, row.found) == ("a: one kind of GPU", "A100-SXM4-80GB, H100 80GB HBM3")
    assert refused(rows(facts(gpu("A100", 0), gpu("H100", 1)), "0.26.0", gpus=[1])) == []
    assert refused(rows(facts(gpu("H100", 0), gpu("H100", 1)), "0.26.0", gpus=[0, 1])) == []


def test_hosts_with_the_same_instances_have_gpus_of_one_kind() -> None:
    peers = {"gpu1": facts(gpu("A100", 0)), "gpu2": facts(gpu("H100", 0)), "edge1": facts()}
    row = group_row("gpu1", peers)
    assert row is not None
    assert refused([row]) == [row]
    assert row.found == "gpu1: A100-SXM4-80GB; gpu2: H100 80GB HBM3"
    same = group_row("gpu1", {"gpu1": facts(gpu("A100", 0)), "gpu2": facts(gpu("A100", 3))})
    assert same is not None
    assert refused([same]) == []
    assert group_row("gpu1", {"gpu1": facts(gpu("A100", 0))}) is None


def test_a_host_without_a_gpu_is_refused() -> None:
    found = refused(rows(facts(driver=None), "0.26.0"))
    assert [(row.what, row.found) for row in found] == [
        ("GPU", "none on the PCI bus"),
        ("driver", "none; libnvidia-ml.so.1 is not on the host"),
    ]
    assert "stack_runtime.flavour: cpu" in found[0].fix
    assert [row.what for row in refused(rows(facts(driver=None), "0.26.0", BUNDLE))] == ["GPU"]


def test_a_driver_that_is_installed_and_does_not_answer_is_refused() -> None:
    asleep = {"installed": "580.95.05", "modules": "open", "problem": "nvmlInit_v2: the driver is not loaded"}
    base = facts(bare("H100", 0)).model_dump(exclude={"driver"})
    row = only(rows(GpuFacts.of({**base, "driver": asleep}), "0.26.0"))
    assert row.found == "580.95.05; nvmlInit_v2: the driver is not loaded"
    assert row.fix.startswith("run modprobe nvidia")
    row = only(rows(GpuFacts.of({**base, "driver": {**asleep, "installed": "535.261.03"}}), "0.26.0"))
    assert row.fix.startswith("install driver 580")


def test_a_host_without_a_driver_is_refused_unless_one_is_to_be_installed() -> None:
    bus = facts(bare("H100", 0), driver=None)
    row = only(rows(bus, "0.26.0"))
    assert row.found == "none; libnvidia-ml.so.1 is not on the host"
    assert "nvidia_driver_source: bundle" in row.fix
    assert refused(rows(bus, "0.26.0", BUNDLE)) == []
    old = DriverPlan("bundle", "535.261.03", "open", ("6.1.0-47-amd64",))
    assert only(rows(bus, "0.26.0", old)).found == "535.261.03, to be installed from the bundle"
    assert only(rows(bus, "0.26.0", DriverPlan("runfile", None, "open", ("6.1.0-47-amd64",)))).what == "driver"


def test_a_module_is_built_only_where_its_kernels_headers_are() -> None:
    other = DriverPlan("bundle", "580.95.05", "open", ("6.1.0-46-amd64",))
    bus = bare("H100", 0)
    row = only(rows(facts(bus, driver=None), "0.26.0", other))
    assert (row.what, row.wanted) == ("kernel headers", "those of 6.1.0-47-amd64")
    assert "those of 6.1.0-46-amd64" in row.found
    assert refused(rows(facts(bus, driver=None, header_kernels=["6.1.0-47-amd64"]), "0.26.0", other)) == []
    assert "kernel headers" not in {row.what for row in rows(facts(gpu("H100", 0)), "0.26.0")}


def test_secure_boot_wants_a_key_where_modules_are_built() -> None:
    bus = facts(bare("H100", 0), driver=None, secure_boot=True)
    assert only(rows(bus, "0.26.0", BUNDLE)).what == "Secure Boot"
    signing = DriverPlan("bundle", "580.95.05", "open", ("6.1.0-47-amd64",), signs=True)
    assert refused(rows(bus, "0.26.0", signing)) == []
    assert refused(rows(facts(gpu("H100", 0), secure_boot=True), "0.26.0")) == []
    assert {row.what for row in refused(rows(bus, "0.26.0"))} == {"driver", "Secure Boot"}
    unsaid = facts(bare("H100", 0), driver=None, secure_boot=None)
    assert refused(rows(unsaid, "0.26.0", BUNDLE)) == []


def test_nouveau_is_not_loaded() -> None:
    assert only(rows(facts(gpu("H100", 0), nouveau=True), "0.26.0")).what == "nouveau"
    allowed = DriverPlan("bundle", "580.95.05", "open", ("6.1.0-47-amd64",), reboots=True)
    bus = facts(bare("H100", 0), driver=None, nouveau=True)
    assert refused(rows(bus, "0.26.0", allowed)) == []
    assert only(rows(bus, "0.26.0", BUNDLE)).fix == "set nvidia_driver_reboot_allowed: true"


def test_a_gpu_that_fell_off_the_bus_is_missed() -> None:
    lost = facts(gpu("H100", 0), bare("H100", 1), xids=[{"bus_id": "0000:11:00", "code": 79}])
    row = only(rows(lost, "0.26.0"))
    assert (row.what, row.found) == ("GPUs that answer", "without 0000:11:00.0, after Xid 79")
    given_away = {**bare("H100", 1), "kernel_driver": "vfio-pci"}
    assert refused(rows(facts(gpu("H100", 0), given_away), "0.26.0")) == []
    noisy = facts(gpu("H100", 0), xids=[{"bus_id": "0000:10:00", "code": 31}])
    assert refused(rows(noisy, "0.26.0")) == []


@pytest.mark.parametrize("name", [0, uuid_of(0), "0000:10:00.0", "00000000:10:00.0"])
def test_a_gpu_is_named_by_index_uuid_or_bus(name: int | str) -> None:
    assert refused(rows(facts(gpu("H100", 0)), "0.26.0", gpus=[name])) == []
    gpus = facts(gpu("H100", 0)).gpus
    assert visible_devices([name], gpus, by_uuid=True) == [uuid_of(0)]
    assert visible_devices([name], gpus, by_uuid=False) == ["0"]


def test_gpus_that_the_host_lacks_are_named() -> None:
    row = only(rows(facts(gpu("H100", 0)), "0.26.0", gpus=[0, 3]))
    assert row.found == f"no 3; the host has 0 = 0000:10:00.0 = {uuid_of(0)}"
    assert only(rows(facts(gpu("H100", 0)), "0.26.0", gpus=[])).found == "none named"
    bus = facts(bare("H100", 0), driver=None)
    assert refused(rows(bus, "0.26.0", BUNDLE, gpus=[uuid_of(0)])) == []
    assert visible_devices([0, "0000:99:00.0"], bus.gpus, by_uuid=True) == ["0", "0000:99:00.0"]


def test_quantization_and_attention_backend_want_a_gpu_that_has_them() -> None:
    old = facts(gpu("V100", 0), driver="550.163.01", cuda="12.4", modules="proprietary")
    assert only(rows(old, "0.10.2", quantization="awq")).wanted == "awq: 7.5 or newer"
    assert refused(rows(old, "0.10.2", quantization="gptq")) == []
    flash = {"attention-backend": "FLASH_ATTN"}
    assert only(rows(facts(gpu("T4", 0)), "0.26.0", extra_args=flash)).what == "a: attention backend"
    assert refused(rows(facts(gpu("A10", 0)), "0.26.0", extra_args=flash)) == []
    assert refused(rows(facts(gpu("T4", 0)), "0.26.0", extra_args={"attention-backend": "NEW"})) == []


def test_flashinfer_wants_a_compiler_or_compiled_kernels() -> None:
    asked = {"attention-backend": "FLASHINFER"}
    row = only(rows(facts(gpu("H100", 0)), "0.26.0", extra_args=asked))
    assert (row.what, row.found) == ("a: compiler for GPUs", "neither")
    assert refused(rows(facts(gpu("H100", 0), nvcc="13.0"), "0.26.0", extra_args=asked)) == []
    assert refused(rows(facts(gpu("H100", 0)), "0.26.0", cached=True, extra_args=asked)) == []


def test_wheels_want_a_glibc() -> None:
    assert only(rows(facts(gpu("H100", 0), glibc="2.27"), "0.26.0")).what == "glibc"
    assert refused(rows(facts(gpu("H100", 0), glibc="2.28"), "0.26.0")) == []


def test_every_refusal_is_in_one_table() -> None:
    found = facts(gpu("T4", 0), driver="535.183.01", cuda="12.2", modules="proprietary", nouveau=True, glibc="2.27")
    table = table_of(rows(found, "0.26.0", dtype="bfloat16", extra_args={"attention-backend": "FLASH_ATTN"}))
    lines = table.splitlines()
    assert lines[0].split() == ["what", "wanted", "found", "verdict"]
    refused = [line for line in lines if line.endswith("refused")]
    assert [line.split("  ")[0] for line in refused] == [
        "driver",
        "nouveau",
        "glibc",
        "a: dtype",
        "a: attention backend",
    ]
    assert lines[2] == refused[0]
    assert sum(line.startswith("- ") for line in lines) == 5


def test_an_unlisted_gpu_is_judged_by_what_its_driver_says() -> None:
    new = gpu("H100", 0, device_id="ffff", capability=[13, 0], name="NVIDIA X1")
    assert refused(rows(facts(new), "0.33.0", dtype="bfloat16")) == []
    unknown = {"bus_id": "0000:10:00.0", "device_id": "ffff"}
    found_rows = rows(facts(unknown, driver=None), "0.33.0", BUNDLE)
    assert refused(found_rows) == []
    assert {row.found for row in found_rows if row.verdict is Verdict.UNKNOWN} == {
        "not known of a GPU with the PCI id 10de:ffff"
    }


def test_a_gpus_memory_is_what_cuda_gets_of_the_smallest() -> None:
    raw = {"name": "a", "model": {"repo": "o/m", "revision": "0" * 40}, "max_num_seqs": 4, "max_model_len": 128}
    (one,) = parse_instances([{**raw, "gpus": [0, 1]}])
    both = facts(gpu("H100", 0, reserved=1 << 30), gpu("H100", 1))
    assert cuda_bytes_of(one.gpus, both.gpus) == 79 << 30
    assert cuda_bytes_of(one.gpus, facts(gpu("H100", 0)).gpus) is None
    assert cuda_bytes_of(one.gpus, facts(bare("H100", 0), bare("H100", 1), driver=None).gpus) == 80_000_000_000
    (part,) = parse_instances([{**raw, "gpus": [slice_of(1)]}])
    cut = facts(gpu("A100", 0, mig=True, slices=[{"uuid": slice_of(1), "memory": 20 << 30, "reserved": 1 << 20}]))
    assert cuda_bytes_of(part.gpus, cut.gpus) == (20 << 30) - (1 << 20)
