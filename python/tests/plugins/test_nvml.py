"""NVML's functions are called as its header says: against a stand-in that writes what an H200's driver wrote."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import pytest

from rackserve.ansible.module_utils import rackserve_nvml as nvml

RECORDED = json.loads((Path(__file__).parents[1] / "data/h200/nvml.json").read_text())
SLICE = "MIG-00000000-0000-0000-0000-000000000001"


class StandIn:
    """Stands in for libnvidia-ml.so.1: writes through the pointers that it is given, as the library would."""

    def __init__(
        self,
        *missing: str,
        mig: bool = False,
        failing: dict[str, int] | None = None,
        last: int = 64,
        fabric: tuple[int, int] = (3, 0),
        name: bytes = b"",
    ) -> None:
        self.mig, self.last, self.fabric, self.name = mig, last, fabric, name
        self.missing = missing
        self.failing = failing or {}

    def __getattr__(self, name: str) -> Any:
        if name in self.missing:
            raise AttributeError(name)
        if name in self.failing:
            return lambda *_: self.failing[name]
        return lambda *arguments: getattr(type(self), name.lower())(self, *arguments) or 0

    def nvmlinit_v2(self) -> None: ...

    def nvmlshutdown(self) -> None: ...

    def nvmlsystemgetcudadriverversion_v2(self, into: Any) -> None:
        into._obj.value = RECORDED["cuda_driver"]

    def nvmlsystemgetdriverversion(self, buffer: Any, _: Any) -> None:
        buffer.value = RECORDED["driver"].encode()

    def nvmldevicegetcount_v2(self, into: Any) -> None:
        into._obj.value = RECORDED["count"]

    def nvmldevicegethandlebyindex_v2(self, index: Any, into: Any) -> int:
        into._obj.value = 1000 + index.value
        return 0 if index.value < self.last else 2

    def nvmldevicegetpciinfo_v3(self, _: Any, into: Any) -> None:
        into._obj.bus_id = RECORDED["PciInfo"]["busId"].encode()
        into._obj.device_id = RECORDED["PciInfo"]["pciDeviceId"]

    def nvmldevicegetmemoryinfo_v2(self, gpu: Any, into: Any) -> None:
        assert into._obj.version == RECORDED["memory_v2"]["version"]
        whole = gpu.value < 2000
        into._obj.total = RECORDED["memory_v2"]["total"] if whole else 19 << 30
        into._obj.reserved = RECORDED["memory_v2"]["reserved"]

    def nvmldevicegetmemoryinfo(self, _: Any, into: Any) -> None:
        into._obj.total = RECORDED["MemoryInfo"]["total"]

    def nvmldevicegetname(self, _: Any, buffer: Any, __: Any) -> None:
        buffer.value = self.name or RECORDED["Name"].encode()

    def nvmldevicegetuuid(self, gpu: Any, buffer: Any, _: Any) -> None:
        buffer.value = (RECORDED["UUID"] if gpu.value < 2000 else SLICE).encode()

    def nvmldevicegetcudacomputecapability(self, _: Any, major: Any, minor: Any) -> None:
        major._obj.value, minor._obj.value = RECORDED["CudaComputeCapability"]

    def nvmldevicegetmigmode(self, _: Any, current: Any, pending: Any) -> None:
        current._obj.value = pending._obj.value = int(self.mig)

    def nvmldevicegetmaxmigdevicecount(self, _: Any, into: Any) -> None:
        into._obj.value = 7

    def nvmldevicegetmigdevicehandlebyindex(self, _: Any, index: Any, into: Any) -> int:
        into._obj.value = 2000
        return 0 if index.value == 1 else 6

    def nvmldevicegeteccmode(self, _: Any, current: Any, pending: Any) -> None:
        current._obj.value, pending._obj.value = RECORDED["EccMode"]

    def nvmldevicegetnvlinkstate(self, _: Any, link: Any, into: Any) -> int:
        into._obj.value = 1
        return 0 if link.value < 4 else 2 if link.value < 10 else 3

    def nvmldevicegetgpufabricinfov(self, _: Any, into: Any) -> None:
        assert into._obj.version == 0x2000024
        into._obj.state, into._obj.status = self.fabric


def test_a_gpu_is_read_as_nvidia_ml_py_read_it() -> None:
    found = nvml.read_nvml(StandIn())
    assert found == {
        "version": "580.159.04",
        "cuda": "13.0",
        "gpus": [
            {
                "index": 0,
                "name": "NVIDIA H200",
                "uuid": "GPU-00000000-0000-0000-0000-000000000000",
                "bus_id": "0000:00:06.0",
                "device_id": "2335",
                "memory": 150754820096,
                "reserved": 644939776,
                "capability": [9, 0],
                "mig": False,
                "slices": [],
                "nvlinks": 4,
                "ecc": True,
                "fabric": "completed",
                "unread": {},
            }
        ],
        "gone": {},
        "unread": {},
    }
    gpu = found["gpus"][0]
    assert gpu["memory"] - gpu["reserved"] == RECORDED["cuda_total"]


def test_slices_have_an_identity_and_memory_of_their_own() -> None:
    (gpu,) = nvml.read_nvml(StandIn(mig=True))["gpus"]
    assert gpu["mig"] is True
    assert gpu["slices"] == [{"uuid": SLICE, "memory": 19 << 30, "reserved": 644939776}]


def test_what_an_older_driver_or_a_smaller_gpu_lacks_is_unknown() -> None:
    lacking = {"nvmlDeviceGetMigMode": 3, "nvmlDeviceGetEccMode": 3, "nvmlDeviceGetNvLinkState": 3}
    (gpu,) = nvml.read_nvml(StandIn("nvmlDeviceGetGpuFabricInfoV", failing=lacking))["gpus"]
    assert (gpu["mig"], gpu["slices"], gpu["ecc"], gpu["nvlinks"], gpu["fabric"]) == (None, [], None, 0, None)


FIELDS = {
    "nvmlDeviceGetPciInfo_v3": "bus_id",
    "nvmlDeviceGetName": "name",
    "nvmlDeviceGetUUID": "uuid",
    "nvmlDeviceGetCudaComputeCapability": "capability",
    "nvmlDeviceGetMigMode": "mig",
    "nvmlDeviceGetEccMode": "ecc",
    "nvmlDeviceGetNvLinkState": "nvlinks",
    "nvmlDeviceGetGpuFabricInfoV": "fabric",
}


@pytest.mark.parametrize("code", [4, 25, 77, 999])
@pytest.mark.parametrize("function", FIELDS)
def test_a_field_that_is_not_given_is_that_field_only_and_told(function: str, code: int) -> None:
    whole, field = nvml.read_nvml(StandIn())["gpus"][0], FIELDS[function]
    (gpu,) = nvml.read_nvml(StandIn(failing={function: code}))["gpus"]
    assert list(gpu["unread"]) == [field]
    assert gpu["unread"][field].startswith(f"{function}: ")
    lost = {field, "unread", "device_id"} if field == "bus_id" else {field, "unread"}
    assert {key: value for key, value in gpu.items() if key not in lost} == {
        key: value for key, value in whole.items() if key not in lost
    }
    assert gpu.get(field) is None


def test_memory_is_read_by_the_older_function_and_is_unknown_only_without_either() -> None:
    (gpu,) = nvml.read_nvml(StandIn(failing={"nvmlDeviceGetMemoryInfo_v2": 25}))["gpus"]
    assert (gpu["memory"], gpu["reserved"], gpu["unread"]) == (RECORDED["MemoryInfo"]["total"], 0, {})
    for code, said in ((3, "not supported"), (4, "no permission")):
        neither = {"nvmlDeviceGetMemoryInfo_v2": code, "nvmlDeviceGetMemoryInfo": code}
        (gpu,) = nvml.read_nvml(StandIn(failing=neither))["gpus"]
        assert (gpu["memory"], gpu["name"]) == (None, "NVIDIA H200")
        assert gpu["unread"] == {"memory": f"nvmlDeviceGetMemoryInfo: {said}"}


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlSystemGetCudaDriverVersion_v2", "cuda"),
        ("nvmlSystemGetDriverVersion", "version"),
        ("nvmlDeviceGetCount_v2", "count"),
    ],
)
def test_a_value_of_the_driver_that_is_not_given_loses_no_gpu(function: str, field: str) -> None:
    found = nvml.read_nvml(StandIn(failing={function: 999}, last=1))
    assert found["unread"] == {field: f"{function}: unknown error"}
    assert [gpu["index"] for gpu in found["gpus"]] == [0]
    assert found.get(field) is None


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetName", "nvmlDeviceGetEccMode"])
@pytest.mark.parametrize(("code", "said"), [(15, "a GPU has fallen off the bus"), (16, "the GPU needs a reset")])
def test_a_gpu_that_is_lost_is_gone_and_the_driver_answers(function: str, code: int, said: str) -> None:
    found = nvml.read_nvml(StandIn(failing={function: code}))
    assert (found["gpus"], found["version"]) == ([], "580.159.04")
    assert found["gone"] == {"0": f"{function}: {said}"}


def test_a_fabric_that_could_not_be_joined_is_no_completed_one() -> None:
    (gpu,) = nvml.read_nvml(StandIn(fabric=(3, 999)))["gpus"]
    assert gpu["fabric"] == "failed: unknown error"
    (gpu,) = nvml.read_nvml(StandIn(fabric=(2, 0)))["gpus"]
    assert gpu["fabric"] == "in progress"


def test_text_that_is_no_utf8_is_read_all_the_same() -> None:
    (gpu,) = nvml.read_nvml(StandIn(name=b"NVIDIA \xff"))["gpus"]
    assert gpu["name"] == "NVIDIA \ufffd"


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [
        ("nvmlInit_v2", 9, "nvmlInit_v2: the driver is not loaded"),
        ("nvmlInit_v2", 18, "the loaded driver and the installed libraries have different versions"),
        ("nvmlInit_v2", 999, "unknown error"),
    ],
)
def test_only_a_driver_that_cannot_be_initialized_does_not_answer(function: str, code: int, said: str) -> None:
    with pytest.raises(nvml.NvmlError, match=said) as failed:
        nvml.read_nvml(StandIn(failing={function: code}))
    assert failed.value.code == code


def test_structures_are_as_large_as_nvml_says() -> None:
    # sizeof of nvmlMemory_v2_t, nvmlPciInfo_t and nvmlGpuFabricInfo_v2_t in nvidia-ml-py 13.610.43.
    assert [ctypes.sizeof(kind) for kind in (nvml.Memory, nvml.PciInfo, nvml.FabricInfo)] == [40, 68, 36]
    assert nvml.FabricInfo.state.offset == 28


def test_a_bus_address_is_written_as_the_kernel_does() -> None:
    assert nvml.short_bus_id("00000000:3B:00.0") == "0000:3b:00.0"
    assert nvml.short_bus_id("00010000:3B:00.0") == "10000:3b:00.0"
