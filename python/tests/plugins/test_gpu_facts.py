"""The pure parts of reading a host's GPUs and driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
    devices = facts.pci_devices(str(host))
    assert [(d["bus_id"], d["class"]) for d in devices if d["class"] == "0x0680"] == [("0000:87:00.0", "0x0680")]
    assert facts.merge_gpus([], devices) == [
        {"bus_id": "0000:3b:00.0", "device_id": "2330", "seen_on_bus": True, "kernel_driver": "nvidia"},
        {"bus_id": "0000:5e:00.0", "device_id": "2330", "seen_on_bus": True, "kernel_driver": ""},
    ]


def test_a_gpu_that_the_driver_shows_is_listed_once(host: Path) -> None:
    shown = [{"bus_id": "0000:3b:00.0", "device_id": "2330", "index": 0}, {"bus_id": "0000:99:00.0", "index": 1}]
    merged = facts.merge_gpus(shown, facts.pci_devices(str(host)))
    assert [(gpu["bus_id"], gpu.get("index"), gpu["seen_on_bus"]) for gpu in merged] == [
        ("0000:3b:00.0", 0, True),
        ("0000:5e:00.0", None, True),
        ("0000:99:00.0", 1, False),
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
        ("nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\n", "13.0"),
        ("", None),
    ],
)
def test_programs_say_their_version(text: str, expected: str | None) -> None:
    assert facts.first_version(text) == expected
