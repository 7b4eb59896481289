"""The metrics of a host: certificates, bundle, release and GPUs."""

from __future__ import annotations

import calendar
from typing import TYPE_CHECKING

import pytest

from rackserve import pki
from rackserve.programs import host_metrics as hm

if TYPE_CHECKING:
    from collections.abc import Sequence
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


# As an H200 with driver 580.159.04 answered the query of `QUERY` on 2026-11-30, the second GPU with other values.
RECORDED = """0, 580.159.04, 32, 0, 0, 143771, 92.49, 360, 0, 0, Not Active, Not Active, Not Active, No, No
1, 580.159.04, 41, 87, 1024, 143771, 110.50, 1980, 0, [N/A], Not Active, Active, Not Active, No, Yes
"""
QUERY = ["driver_version", *(field for field, *_ in hm.FIELDS)]


class Smi:
    """Stands in for nvidia-smi's queries: knows the fields but `unknown`, refuses as 580.159.04 does."""

    def __init__(self, *unknown: str, words: str = 'Field "{}" is not a valid field to query.\n', **cells: str) -> None:
        self.unknown, self.words, self.cells = unknown, words, cells
        self.calls: list[list[str]] = []

    def __call__(self, names: Sequence[str]) -> tuple[str, str]:
        self.calls.append(list(names))
        refused = next((name for name in names if any(part in name for part in self.unknown)), None)
        if refused:
            return self.words.format(refused), ""
        table = ""
        for index, line in enumerate(RECORDED.splitlines()):
            known = dict(zip(["index", *QUERY], line.split(", "), strict=True))
            known |= {name.replace("event", "throttle"): cell for name, cell in known.items()}
            known |= {name.replace("_", "."): cell for name, cell in self.cells.items() if index == 0}
            table += ", ".join(known[name] for name in names) + "\n"
        return table, ""


def unread(found: dict[str, float]) -> dict[str, float]:
    prefix = 'gpu_fields_unread{field="'
    return {name.removeprefix(prefix)[:-2]: n for name, n in found.items() if name.startswith(prefix) and n}


def test_a_gpus_row_has_its_units_and_leaves_out_what_the_gpu_does_not_have() -> None:
    smi = Smi()
    found = values(hm.gpu_rows(hm.query(QUERY, smi)))
    assert smi.calls == [["index", *QUERY]]
    assert found['gpu_utilization_ratio{gpu="1"}'] == 0.87
    assert found['gpu_memory_used_bytes{gpu="1"}'] == 1 << 30
    assert found['gpu_throttled{gpu="1",reason="sw_thermal"}'] == 1
    assert found['gpu_rows_remap_failed{gpu="1"}'] == 1
    assert 'gpu_ecc_uncorrected_total{gpu="1"}' not in found
    assert unread(found) == {}
    assert sum(name.startswith("gpu_fields_unread") for name in found) == len(hm.FIELDS)


def test_a_driver_with_the_older_names_loses_nothing() -> None:
    whole = hm.gpu_rows(hm.query(QUERY, Smi()))
    smi = Smi("clocks_event_reasons")
    assert hm.gpu_rows(hm.query(QUERY, smi)) == whole
    assert len(smi.calls) == 2


@pytest.mark.parametrize("words", ['Field "{}" is not a valid field to query.\n', "no such field\n", ""])
@pytest.mark.parametrize("field", [field for field, *_ in hm.FIELDS])
def test_a_field_that_the_driver_does_not_know_is_that_field_only_and_told(field: str, words: str) -> None:
    names = (field, field.replace("event", "throttle"))
    found = values(hm.gpu_rows(hm.query(QUERY, Smi(*names, words=words))))
    assert unread(found) == {field: 2}
    whole = values(hm.gpu_rows(hm.query(QUERY, Smi())))
    ((metric, labels),) = {(name, labels) for key, name, labels, _ in hm.FIELDS if key == field}
    lost = {name for name in whole if name.startswith(f"gpu_{metric}{{") and labels in name}
    assert {name for name in whole if name not in found} == lost


def test_many_unknown_fields_leave_the_others() -> None:
    found = values(hm.gpu_rows(hm.query(QUERY, Smi("clocks", "ecc", "remapped", "driver_version"))))
    assert len(unread(found)) == 8
    assert found['gpu_temperature_celsius{gpu="0"}'] == 32
    assert hm.query(QUERY, Smi("")) == {}


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        *(("[N/A]", False), ("N/A", False), ("Not Supported", False), ("[Not Supported]", False)),
        *(("[Insufficient Permissions]", True), ("ERR!", True), ("[Unknown Error]", True), ("", True), ("nan", True)),
        ("[GPU requires reset]", True),
    ],
)
def test_a_cell_without_a_number_is_told_unless_the_gpu_does_not_have_it(cell: str, *, told: bool) -> None:
    found = values(hm.gpu_rows(hm.query(QUERY, Smi(power_draw=cell))))
    assert 'gpu_power_watts{gpu="0"}' not in found
    assert found['gpu_power_watts{gpu="1"}'] == 110.5
    assert unread(found) == ({"power.draw": 1} if told else {})


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> dict[str, float]:
    """Return the metrics of a host whose nvidia-smi is a script, with two GPUs on its bus."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text(f"#!/bin/sh\n{script}")
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    for name in ("0000:3b:00.0", "0000:86:00.0"):
        (tmp_path / "devices" / name).mkdir(parents=True)
        (tmp_path / "devices" / name / "vendor").write_text("0x10de\n")
        (tmp_path / "devices" / name / "class").write_text("0x030200\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(hm, "DEVICES", tmp_path / "devices")
    return values(hm.gpus())


def test_rows_before_a_lost_gpu_are_kept_and_the_lost_one_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = RECORDED.splitlines()[0]
    lost = "Unable to determine the device handle for GPU0000:86:00.0: GPU is lost."
    found = fake(tmp_path, monkeypatch, f"printf '{row}\\n{lost}\\n\\377'; exit 15\n")
    assert (found["gpus_installed{}"], found["gpus_seen{}"]) == (2, 1)
    assert found['gpu_temperature_celsius{gpu="0"}'] == 32
    assert found['gpu_driver_info{version="580.159.04"}'] == 1


@pytest.mark.parametrize("script", ["echo No devices were found; exit 6\n", "exit 9\n"])
def test_a_driver_without_an_answer_shows_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    found = fake(tmp_path, monkeypatch, script)
    assert (found["gpus_installed{}"], found["gpus_seen{}"]) == (2, 0)
    assert not any(name.startswith(("gpu_temp", "gpu_driver", 'gpu_fields_unread{field="ecc')) for name in found)


@pytest.mark.parametrize(("code", "told"), [(0, 0), (1, 0), (2, 2), (-1, 2)])
def test_a_journal_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: int
) -> None:
    monkeypatch.setattr(hm, "run_all", lambda *_: (code, "", ""))
    found = fake(tmp_path, monkeypatch, "")
    assert found['gpu_fields_unread{field="xid"}'] == told


def test_a_program_that_does_not_come_back_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []

    def hang(*args: str) -> tuple[int, str, str]:
        calls.append(args)
        return -1, "", ""

    monkeypatch.setattr(hm, "run_all", hang)
    assert hm.query(QUERY, hm.Smi()) == {}
    assert len(calls) == 1


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
        *hm.gpu_rows({"0": dict.fromkeys(QUERY, "1")}),
        *hm.bundle({"expires": "2026-01-01"}),
    ]
    assert {f"rackserve_{sample.name}" for sample in samples} <= hm.names()
