"""The metrics of a host: certificates, bundle, release and GPUs."""

from __future__ import annotations

import calendar
from typing import TYPE_CHECKING

import pytest

from rackserve import pki
from rackserve.programs import host_metrics as hm

if TYPE_CHECKING:
    from pathlib import Path

JOURNAL = """NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus.
NVRM: Xid (PCI:0000:3B:00): 31, pid=1234, name=python
NVRM: Xid (PCI:0000:3b:00): 31, pid=1235, name=python
usb 1-1: new device
"""


def values(samples: list[hm.Sample]) -> dict[str, float]:
    return {f"{sample.name}{{{sample.labels}}}": sample.value for sample in samples}


def test_a_certificates_end_is_a_time() -> None:
    found = hm.certificate("/c", {"notAfter": "Nov 24 12:00:00 2026 GMT"})
    assert found == hm.Sample("certificate_not_after_seconds", calendar.timegm((2026, 11, 24, 12, 0, 0)), 'path="/c"')


def test_certificates_are_found_by_patterns(tmp_path: Path) -> None:
    pki.new_authority(tmp_path / "pki", "CA")
    pki.ensure_server(tmp_path / "pki", "edge1", ["edge1"])
    (tmp_path / "pki" / "broken.crt").write_text("no certificate")
    samples = hm.read(tmp_path, tmp_path, [f"{tmp_path}/pki/*.crt", "/nowhere.crt"])
    found = {sample.labels for sample in samples if sample.name.startswith("certificate")}
    assert found == {f'path="{tmp_path}/pki/{name}.crt"' for name in ("ca", "edge1")}


@pytest.mark.parametrize(
    ("expires", "expected"), [(None, []), ("2026-12-31", [calendar.timegm((2027, 1, 1, 0, 0, 0))])]
)
def test_a_bundle_holds_to_the_end_of_its_last_day(expires: str | None, expected: list[float]) -> None:
    of, *end = hm.bundle({"name": "rack", "version": 7, "expires": expires})
    assert of == hm.Sample("bundle_info", 1, 'bundle="rack",version="7"')
    assert [sample.value for sample in end] == expected


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        ("releases/0.32.0-0123abcd", ['release="0.32.0"']),
        ("/opt/vllm/releases/0.6.4.post1-0123abcd", ['release="0.6.4.post1"']),
    ],
)
def test_the_release_is_what_the_link_points_at(target: str, labels: list[str]) -> None:
    assert [sample.labels for sample in hm.runtime(target)] == labels


def test_a_gpus_row_has_its_units_and_leaves_out_what_the_gpu_does_not_have() -> None:
    # As an H200 with driver 580.159.04 answers, with other figures, and with one field that it would not have.
    row = "0, 41, 87, 1024, 143771, 110.50, 1980, 0, [N/A], Not Active, Active, Not Active"
    found = values(hm.gpu_rows(row, hm._GPU))
    assert found['gpu_utilization_ratio{gpu="0"}'] == 0.87
    assert found['gpu_memory_used_bytes{gpu="0"}'] == 1 << 30
    assert found['gpu_throttled{gpu="0",reason="sw_thermal"}'] == 1
    assert 'gpu_ecc_uncorrected_total{gpu="0"}' not in found


def test_an_xid_is_counted_by_gpu_and_each_of_the_hardware_begins_at_zero() -> None:
    found = values(hm.xids(JOURNAL, ["0000:3b:00", "0000:86:00"]))
    assert found['gpu_xid_total{pci="0000:3b:00",xid="79"}'] == 1
    assert found['gpu_xid_total{pci="0000:3b:00",xid="31"}'] == 2
    assert found['gpu_xid_total{pci="0000:86:00",xid="79"}'] == 0
    assert len(found) == 2 * len(hm.HARDWARE_XIDS) + 1


def test_gpus_are_those_of_the_bus_and_not_its_bridges(tmp_path: Path) -> None:
    for name, vendor, kind in (
        ("0000:3b:00.0", "0x10de", "0x030200"),
        ("0000:3b:00.1", "0x10de", "0x040300"),
        ("0000:00:02.0", "0x8086", "0x030000"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert hm.installed(tmp_path) == ["0000:3b:00"]


def test_the_file_is_replaced_and_what_is_not_there_left_out(tmp_path: Path) -> None:
    target = tmp_path / "rackserve_host.prom"
    assert hm.main([str(target), "/nowhere", "/nowhere", str(tmp_path / "no.crt")]) == 0
    assert "rackserve_host_metrics_time_seconds{} " in target.read_text()
    assert list(tmp_path.iterdir()) == [target]
    assert hm.main([str(target), "/nowhere"]) == 2


def test_bundle_and_release_are_read_where_the_host_has_them(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "rack", "version": 7}')
    (tmp_path / "current").symlink_to("releases/0.32.0-0123abcd")
    found = {sample.name: sample.labels for sample in hm.read(tmp_path, tmp_path, [])}
    assert (found["bundle_info"], found["runtime_info"]) == ('bundle="rack",version="7"', 'release="0.32.0"')


def test_every_name_that_is_written_is_listed() -> None:
    samples = [
        *hm.xids("", ["a"]),
        *hm.gpu_rows("0" + ", 1" * len(hm._GPU), hm._GPU),
        *hm.bundle({"expires": "2026-01-01"}),
    ]
    assert {f"rackserve_{sample.name}" for sample in samples} <= hm.names()
