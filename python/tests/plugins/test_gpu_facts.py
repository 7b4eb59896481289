"""The pure parts of reading a host's GPUs and driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackserve.ansible.module_utils import rackserve_pci as pci
from rackserve.ansible.modules import rackserve_gpu_facts as facts

if TYPE_CHECKING:
    from pathlib import Path


def device(root: Path, bus_id: str, *, vendor: str, kind: str, device_id: str, driver: str = "") -> None:
    folder = root / "sys/bus/pci/devices" / bus_id
    folder.mkdir(parents=True)
    for name, text in (("vendor", vendor), ("class", kind), ("device", device_id)):
        (folder / name).write_text(f"{text}\n")
    if driver:
        (folder / "driver").symlink_to(f"/sys/bus/pci/drivers/{driver}")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    device(tmp_path, "0000:3b:00.0", vendor="0x10de", kind="0x030200", device_id="0x2330", driver="nvidia")
    device(tmp_path, "0000:5e:00.0", vendor="0x10de", kind="0x030200", device_id="0x2330")
    device(tmp_path, "0000:87:00.0", vendor="0x10de", kind="0x068000", device_id="0x22a3")
    device(tmp_path, "0000:01:00.0", vendor="0x8086", kind="0x020000", device_id="0x1572", driver="i40e")
    device(tmp_path, "0000:3b:00.1", vendor="0x10de", kind="0x040300", device_id="0x22ba")
    return tmp_path


def test_gpus_on_the_bus_are_seen_without_a_driver(host: Path) -> None:
    devices = pci.pci_devices(str(host))
    assert [(d["bus_id"], d["class"]) for d in devices if d["class"] == "0x0680"] == [("0000:87:00.0", "0x0680")]
    both = {"device_id": "2330", "seen_on_bus": True, "acs_redirect": False, "iommu": ""}
    assert pci.merge_gpus([], devices) == [
        {"bus_id": "0000:3b:00.0", "kernel_driver": "nvidia", **both},
        {"bus_id": "0000:5e:00.0", "kernel_driver": "", **both},
    ]


def test_a_gpu_that_the_driver_shows_is_listed_once(host: Path) -> None:
    shown = [{"bus_id": "0000:3b:00.0", "device_id": "2330", "index": 0}, {"bus_id": "0000:99:00.0", "index": 1}]
    merged = pci.merge_gpus(shown, pci.pci_devices(str(host)))
    assert [(gpu["bus_id"], gpu.get("index"), gpu["seen_on_bus"]) for gpu in merged] == [
        ("0000:3b:00.0", 0, True),
        ("0000:5e:00.0", None, True),
        ("0000:99:00.0", 1, False),
    ]


def test_gpus_whose_address_was_not_read_are_those_that_are_left(host: Path) -> None:
    devices = pci.pci_devices(str(host))
    shown = [{"index": 1, "uuid": "GPU-b"}, {"bus_id": "0000:3b:00.0", "index": 0}]
    merged = pci.merge_gpus(shown, devices)
    assert [(gpu["bus_id"], gpu["index"]) for gpu in merged] == [("0000:3b:00.0", 0), ("0000:5e:00.0", 1)]
    both = pci.merge_gpus([{"index": 0}, {"index": 1}], devices)
    assert [(gpu["bus_id"], gpu["index"]) for gpu in both] == [("0000:3b:00.0", 0), ("0000:5e:00.0", 1)]
    more = pci.merge_gpus([{"index": 0}, {"index": 1}, {"index": 2}], devices)
    assert [gpu["bus_id"] for gpu in more if gpu.get("index") is not None] == ["unknown 0", "unknown 1", "unknown 2"]


def test_a_gpu_that_the_driver_cannot_open_says_why(host: Path) -> None:
    devices = pci.pci_devices(str(host))
    merged = pci.merge_gpus([{"bus_id": "0000:3b:00.0", "index": 0}], devices, {"1": "fallen off the bus"})
    assert [(gpu["bus_id"], gpu.get("index"), gpu.get("problem")) for gpu in merged] == [
        ("0000:3b:00.0", 0, None),
        ("0000:5e:00.0", None, "fallen off the bus"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs-builder)",
            ("580.159.04", "open"),
        ),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024",
            ("535.183.01", "proprietary"),
        ),
        ("", (None, None)),
    ],
)
def test_the_loaded_module_says_its_version_and_flavour(text: str, expected: tuple[str | None, str | None]) -> None:
    assert facts.parse_loaded(text) == expected


def test_xids_are_read_from_the_kernels_log() -> None:
    log = (
        "nvidia 0000:3b:00.0: enabling device\n"
        "NVRM: Xid (PCI:0000:3B:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
        "NVRM: Xid (PCI:0000:5e:00 GPU-I:02): 13, pid=1, Graphics Exception\n"
    )
    assert facts.parse_xids(log) == [{"bus_id": "0000:3b:00", "code": 79}, {"bus_id": "0000:5e:00", "code": 13}]


def test_secure_boot_is_on_off_or_unknown(tmp_path: Path) -> None:
    assert facts.secure_boot(str(tmp_path)) is False
    variable = tmp_path / facts._SECURE_BOOT
    (tmp_path / "sys/firmware/efi").mkdir(parents=True)
    assert facts.secure_boot(str(tmp_path)) is None
    variable.parent.mkdir()
    for data, expected in ((b"\x06\0\0\0\x01", True), (b"\x06\0\0\0\0", False), (b"", None)):
        variable.write_bytes(data)
        assert facts.secure_boot(str(tmp_path)) is expected


def test_a_reboot_has_its_reasons(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert facts.reboot_reasons(root, "580.1", "580.1", mismatch=False) == []
    assert facts.reboot_reasons(root, None, "580.1", mismatch=False) == []
    assert facts.reboot_reasons(root, "580.1", "580.2", mismatch=True) == ["driver 580.1 is loaded, 580.2 is installed"]
    (found,) = facts.reboot_reasons(root, "580.1", None, mismatch=True)
    assert "not of the loaded driver's version" in found
    (tmp_path / "run").mkdir()
    (tmp_path / "run/reboot-required").touch()
    assert facts.reboot_reasons(root, None, None, mismatch=False) == ["/run/reboot-required (no package named)"]
    (tmp_path / "run/reboot-required.pkgs").write_text("linux-image-amd64\nlinux-image-amd64\n")
    assert facts.reboot_reasons(root, None, None, mismatch=False) == ["/run/reboot-required (linux-image-amd64)"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Fabric Manager version is : 580.95.05\n", "580.95.05"),
        ("", None),
    ],
)
def test_programs_say_their_version(text: str, expected: str | None) -> None:
    assert facts.first_version(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\n", "13.0"),
        ("Built by 10.2.0.1\nCuda compilation tools, release 11.5, V11.5.119\n", "11.5"),
        ("", ""),
        ("nvcc fatal", ""),
    ],
)
def test_nvcc_says_its_release_or_nothing(text: str, expected: str) -> None:
    assert facts.nvcc_release(text) == expected


def test_nvcc_is_that_of_cuda_home_before_that_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("path", "home"):
        (tmp_path / home / "bin").mkdir(parents=True)
        (tmp_path / home / "bin/nvcc").write_text("#!/bin/sh\n")
        (tmp_path / home / "bin/nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/path/bin")
    assert facts.find_nvcc({}) == f"{tmp_path}/path/bin/nvcc"
    assert facts.find_nvcc({"CUDA_HOME": f"{tmp_path}/home"}) == f"{tmp_path}/home/bin/nvcc"
    assert facts.find_nvcc({"CUDA_HOME": f"{tmp_path}/gone"}) is None


def bridge(*control: int, length: int = 4096) -> bytes:
    """Return a configuration space with AER and, where a control register is given, ACS behind it."""
    space = bytearray(length)
    space[256:260] = (0x0001 | (0x148 << 20 if control else 0)).to_bytes(4, "little")
    if control:
        space[0x148:0x14C] = (0x000D).to_bytes(4, "little")
        space[0x14E:0x150] = control[0].to_bytes(2, "little")
    return bytes(space)


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        (bridge(0x5F), 4096, True),
        (bridge(0x04), 4096, True),
        (bridge(0x08), 4096, True),
        (bridge(0x01), 4096, False),
        (bridge(0), 4096, False),
        (bridge(), 4096, False),
        (b"", 0, None),
        (bytes(64), 4096, None),
        (bytes(64), 256, None),
        (bytes(256), 256, False),
        (b"\xff" * 4096, 4096, False),
        (bytes(256) + (0x0001 | 256 << 20).to_bytes(4, "little") + bytes(100), 360, False),
    ],
    ids=[
        "all",
        "requests",
        "completions",
        "check",
        "off",
        "none",
        "gone",
        "user",
        "user of PCI",
        "PCI",
        "dead",
        "loop",
    ],
)
def test_acs_is_read_from_a_bridges_configuration(config: bytes, size: int, *, expected: bool | None) -> None:
    assert pci.redirects(config, size) is expected


def test_acs_of_every_bridge_above_a_gpu_counts(tmp_path: Path) -> None:
    root = tmp_path / "devices/pci0000:16/0000:16:00.0"
    gpu = root / "0000:17:00.0/0000:18:00.0"
    gpu.mkdir(parents=True)
    assert pci.acs_redirects(str(gpu)) is None
    (root / "config").write_bytes(bridge(0))
    assert pci.acs_redirects(str(gpu)) is None
    (gpu.parent / "config").write_bytes(bridge(0))
    assert pci.acs_redirects(str(gpu)) is False
    (gpu.parent / "config").write_bytes(bridge(0x1D))
    assert pci.acs_redirects(str(gpu)) is True
    (root / "config").unlink()
    assert pci.acs_redirects(str(gpu)) is True


def test_an_iommu_translates_or_not_or_is_not_there(tmp_path: Path) -> None:
    assert pci.iommu_type(str(tmp_path)) == ""
    (tmp_path / "iommu_group").mkdir()
    assert pci.iommu_type(str(tmp_path)) is None
    (tmp_path / "iommu_group/type").write_text("DMA-FQ\n")
    assert pci.iommu_type(str(tmp_path)) == "DMA-FQ"
