#!/usr/bin/env python3
"""Write host metrics that Prometheus's node exporter lacks: certificates, bundle, release and GPUs.

This one file needs Python 3.9 and its standard library; a timer runs it on the hosts every minute.

    host_metrics.py FILE BUNDLE VLLM_ROOT CERTIFICATE...     replaces FILE by the current metrics

A value that cannot be read is left out, and an alert reports the missing series.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import glob
import json
import math
import os
import re
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEVICES = Path("/sys/bus/pci/devices")
# Of the GPU, its memory, links or firmware; the alert GpuXid asks for these. Each has a series before it happens, since
# a counter that begins at one has not increased. Numbers and names: nverror.h of
# NVIDIA/open-gpu-kernel-modules as of 2022; 140 is from a copy of 2024 whose origin was not seen.
HARDWARE_XIDS = (48, 63, 64, 74, 79, 94, 95, 119, 120, 140)
_XID = re.compile(r"NVRM: Xid \(PCI:(?P<pci>[0-9a-fA-F:.]+)\): (?P<xid>\d+)")
_NVIDIA = "0x10de"
_DISPLAY = "0x03"
# Field of nvidia-smi, metric, labels, factor.
FIELDS = (
    ("temperature.gpu", "temperature_celsius", "", 1),
    ("utilization.gpu", "utilization_ratio", "", 0.01),
    ("memory.used", "memory_used_bytes", "", 1 << 20),
    ("memory.total", "memory_total_bytes", "", 1 << 20),
    ("power.draw", "power_watts", "", 1),
    ("clocks.sm", "clock_hertz", "", 1e6),
    ("ecc.errors.corrected.volatile.total", "ecc_corrected_total", "", 1),
    ("ecc.errors.uncorrected.volatile.total", "ecc_uncorrected_total", "", 1),
    ("clocks_event_reasons.hw_thermal_slowdown", "throttled", 'reason="hw_thermal"', 1),
    ("clocks_event_reasons.sw_thermal_slowdown", "throttled", 'reason="sw_thermal"', 1),
    ("clocks_event_reasons.hw_power_brake_slowdown", "throttled", 'reason="power_brake"', 1),
    ("remapped_rows.pending", "rows_remap_pending", "", 1),
    ("remapped_rows.failure", "rows_remap_failed", "", 1),
)
# By newer names, those of older drivers; 580.159.04 takes both.
_OLDER = (("clocks_event_reasons.", "clocks_throttle_reasons."),)
_VERSION = "driver_version"
_UNKNOWN_FIELD = re.compile(r'Field "(?P<name>[^"]+)" is not a valid field')
_WORDS = {"Active": 1.0, "Not Active": 0.0, "Yes": 1.0, "No": 0.0, "Enabled": 1.0, "Disabled": 0.0}
# What a GPU without the feature answers: there is nothing to read.
_ABSENT = ("n/a", "not supported", "not available", "requested functionality has been deprecated")


class Sample(NamedTuple):
    """One line of metrics; `labels` as in the exposition format."""

    name: str
    value: float
    labels: str = ""


def page(samples: list[Sample]) -> str:
    """Return the line for the node exporter."""
    return "".join(f"rackserve_{s.name}{{{s.labels}}} {s.value:.16g}\n" for s in samples)


def certificate(path: str, fields: dict[str, Any]) -> Sample:
    """Return the expiry of a certificate."""
    ends = ssl.cert_time_to_seconds(fields["notAfter"])
    return Sample("certificate_not_after_seconds", ends, f'path="{path}"')


def bundle(manifest: dict[str, Any]) -> list[Sample]:
    """Return the bundle's name, version and id, and its expiry if it has one."""
    found = [Sample("bundle_info", 1, f'bundle="{manifest.get("name", "")}",version="{manifest.get("version", "")}"')]
    if manifest.get("expires"):
        last = dt.datetime.fromisoformat(manifest["expires"]).replace(tzinfo=dt.timezone.utc)
        found.append(Sample("bundle_expires_seconds", (last + dt.timedelta(days=1)).timestamp()))
    return found


def runtime(target: str) -> list[Sample]:
    """Return the release of a link like /opt/vllm/releases/0.32.0-0123abcd."""
    release = Path(target).name.rsplit("-", 1)[0]
    return [Sample("runtime_info", 1, f'release="{release}"')] if release else []


def query(names: Sequence[str], ask: Callable[[Sequence[str]], tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Return what nvidia-smi answers, by GPU's index and field; a field that no query gave is missing.

    nvidia-smi refuses a whole query (`Field "x" is not a valid field to query.`, exit 2; driver 580.159.04) for one
    field that it does not know: that one is asked for by its older name, then left out. If it refuses in other words,
    each field is asked for alone.

    Args:
        names: fields, the current names.
        ask: runs one query, and returns the lines of its table and what it said besides.
    """
    asked = {name: name for name in names}
    for _ in range(2 * len(names) + 1):
        table, said = ask(["index", *asked.values()])
        found = _table(table, list(asked))
        refused = _UNKNOWN_FIELD.search(said) or _UNKNOWN_FIELD.search(table)
        if found or refused is None:
            break
        asked = _without(asked, refused["name"])
        if not asked:
            break
    if not found:
        found = _table(ask(["index"])[0], [])
        for name, used in asked.items() if found else ():
            for index, cells in _table(ask(["index", used])[0], [name]).items():
                found.setdefault(index, {}).update(cells)
    return found


def _without(asked: dict[str, str], refused: str) -> dict[str, str]:
    """Return the fields to ask for after one was refused: that one by its older name, or not at all."""
    if _older_name(refused) != refused:  # its whole group was renamed at once
        return {name: _older_name(used) for name, used in asked.items()}
    return {name: used for name, used in asked.items() if used.lower() != refused.lower()}


def _older_name(name: str) -> str:
    for new, old in _OLDER:
        name = name.replace(new, old)
    return name


def _table(text: str, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the cells of a table by index and field; what is no row of it (a warning, a lost GPU) is left out."""
    found = {}
    for line in text.splitlines():
        index, *cells = (cell.strip() for cell in line.split(","))
        if index.isdigit() and len(cells) == len(names):
            found[index] = dict(zip(names, cells))
    return found


def gpu_rows(answers: dict[str, dict[str, str]]) -> list[Sample]:
    """Return the metrics of what nvidia-smi answered, and by field how many GPUs did not tell it.

    A field that the GPU does not have reads [N/A] and makes no series.
    """
    found, unread = [], dict.fromkeys((field for field, *_ in FIELDS), 0)
    for index, cells in answers.items():
        for field, name, labels, factor in FIELDS:
            cell = cells.get(field, "")
            value = _number(cell)
            if value is not None:
                both = ",".join(part for part in (f'gpu="{index}"', labels) if part)
                found.append(Sample(f"gpu_{name}", value * factor, both))
            elif cell.strip("[]").lower() not in _ABSENT:
                unread[field] += 1
    return found + [Sample("gpu_fields_unread", count, f'field="{field}"') for field, count in unread.items()]


def xids(journal: str, devices: list[str]) -> list[Sample]:
    """Return how often the driver reported each Xid of each GPU since the boot."""
    counts = {(device, xid): 0 for device in devices for xid in HARDWARE_XIDS}
    for found in _XID.finditer(journal):
        key = (_bus(found["pci"]), int(found["xid"]))
        counts[key] = counts.get(key, 0) + 1
    return [Sample("gpu_xid_total", count, f'pci="{pci}",xid="{xid}"') for (pci, xid), count in counts.items()]


def _bus(address: str) -> str:
    """Return a PCI address without its function, which the driver leaves out."""
    return address.lower().split(".")[0]


def _number(cell: str) -> float | None:
    if cell in _WORDS:
        return _WORDS[cell]
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def installed(devices: Path) -> list[str]:
    """Return the PCI addresses of NVIDIA's GPUs that the kernel sees."""
    found = []
    for device in sorted(devices.glob("*")):
        with contextlib.suppress(OSError):
            kind = (device / "class").read_text().strip()
            if (device / "vendor").read_text().strip() == _NVIDIA and kind.startswith(_DISPLAY):
                found.append(_bus(device.name))
    return found


def run_all(*args: str) -> tuple[int, str, str]:
    """Return a program's exit code, standard output and standard error; -1 when it is missing or times out."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(args, capture_output=True, text=True, errors="replace", timeout=20, check=False)
        return done.returncode, done.stdout, done.stderr
    return -1, "", ""


class Smi:
    """Queries of nvidia-smi; none after one that did not come back, nor after a minute: the unit has two in all."""

    def __init__(self) -> None:
        self.until = time.monotonic() + 60

    def __call__(self, names: Sequence[str]) -> tuple[str, str]:
        """Return the table, which it prints up to a lost GPU even where it fails, and its errors."""
        if time.monotonic() > self.until:
            return "", ""
        code, out, err = run_all("nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits")
        if code == -1:
            self.until = 0.0
        return out, err


def gpus() -> list[Sample]:
    """Return the metrics of the GPUs; none on a host without a GPU."""
    devices = installed(DEVICES)
    if not devices:
        return []
    ask = Smi()
    answers = query([_VERSION, *(field for field, *_ in FIELDS)], ask)
    drivers = {cells[_VERSION] for cells in answers.values() if re.fullmatch(r"[\d.]+", cells.get(_VERSION, ""))}
    # It ends with 1 where no line matches.
    code, journal, _ = run_all("journalctl", "--dmesg", "--boot", "--output=cat", "--no-pager", "--grep=NVRM: Xid")
    return [
        Sample("gpus_installed", len(devices)),
        Sample("gpus_seen", len(answers)),
        *(Sample("gpu_driver_info", 1, f'version="{version}"') for version in sorted(drivers)),
        *(gpu_rows(answers) if answers else []),
        Sample("gpu_fields_unread", 0 if code in (0, 1) else len(devices), 'field="xid"'),
        *xids(journal, devices),
    ]


def names() -> set[str]:
    """Return the name of every series that this program can write."""
    others = (
        *("host_metrics_time_seconds", "certificate_not_after_seconds", "bundle_expires_seconds", "runtime_info"),
        "bundle_info",
        *("gpus_installed", "gpus_seen", "gpu_driver_info", "gpu_xid_total", "gpu_fields_unread"),
    )
    return {f"rackserve_{name}" for name in (*others, *(f"gpu_{field[1]}" for field in FIELDS))}


def read(bundle_root: Path, vllm_root: Path, certificates: list[str]) -> list[Sample]:
    """Return every metric of this host."""
    found = [Sample("host_metrics_time_seconds", time.time())]
    for path in (path for pattern in certificates for path in sorted(glob.glob(pattern))):
        with contextlib.suppress(OSError):
            # The standard library's own reader of a file with a certificate; hosts need not have openssl.
            found.append(certificate(path, ssl._ssl._test_decode_cert(path)))  # type: ignore[attr-defined]  # noqa: SLF001
    with contextlib.suppress(OSError, ValueError):
        found += bundle(json.loads((bundle_root / "manifest.json").read_text(encoding="utf-8")))
    with contextlib.suppress(OSError):
        found += runtime(os.readlink(vllm_root / "current"))
    return found + gpus()


def main(argv: list[str]) -> int:
    """Replace the file by one atomic rename."""
    try:
        target, bundle_root, vllm_root, *certificates = argv
    except ValueError:
        print("usage: host_metrics.py FILE BUNDLE VLLM_ROOT PATTERN...", file=sys.stderr)
        return 2
    draft = Path(f"{target}.new")
    draft.write_text(page(read(Path(bundle_root), Path(vllm_root), certificates)), encoding="utf-8")
    draft.replace(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
