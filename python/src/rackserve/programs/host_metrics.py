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
import os
import re
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

DEVICES = Path("/sys/bus/pci/devices")
# Of the GPU, its memory, links or firmware; the alert GpuXid asks for these. Each has a series before it happens, since
# a counter that begins at one has not increased. Numbers and names: nverror.h of
# NVIDIA/open-gpu-kernel-modules as of 2022; 140 is from a copy of 2024 whose origin was not seen.
HARDWARE_XIDS = (48, 63, 64, 74, 79, 94, 95, 119, 120, 140)
_XID = re.compile(r"NVRM: Xid \(PCI:(?P<pci>[0-9a-fA-F:.]+)\): (?P<xid>\d+)")
_NVIDIA = "0x10de"
_DISPLAY = "0x03"
# Field of nvidia-smi, metric, labels, factor.
_GPU = (
    ("temperature.gpu", "temperature_celsius", "", 1),
    ("utilization.gpu", "utilization_ratio", "", 0.01),
    ("memory.used", "memory_used_bytes", "", 1 << 20),
    ("memory.total", "memory_total_bytes", "", 1 << 20),
    ("power.draw", "power_watts", "", 1),
    ("clocks.sm", "clock_hertz", "", 1e6),
    ("ecc.errors.corrected.volatile.total", "ecc_corrected_total", "", 1),
    ("ecc.errors.uncorrected.volatile.total", "ecc_uncorrected_total", "", 1),
    ("clocks_throttle_reasons.hw_thermal_slowdown", "throttled", 'reason="hw_thermal"', 1),
    ("clocks_throttle_reasons.sw_thermal_slowdown", "throttled", 'reason="sw_thermal"', 1),
    ("clocks_throttle_reasons.hw_power_brake_slowdown", "throttled", 'reason="power_brake"', 1),
)
_ROWS = (
    ("remapped_rows.pending", "rows_remap_pending", "", 1),
    ("remapped_rows.failure", "rows_remap_failed", "", 1),
)
_WORDS = {"Active": 1.0, "Not Active": 0.0, "Yes": 1.0, "No": 0.0}


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


def gpu_rows(text: str, fields: tuple[tuple[str, str, str, float], ...]) -> list[Sample]:
    """Return the metrics in nvidia-smi's table: the GPU's index, and a column for each field.

    A field that the GPU does not have reads [N/A] and makes no series.
    """
    found = []
    for line in text.splitlines():
        index, *cells = (cell.strip() for cell in line.split(","))
        for (_, name, labels, factor), cell in zip(fields, cells):
            value = _number(cell)
            if value is not None:
                both = ",".join(part for part in (f'gpu="{index}"', labels) if part)
                found.append(Sample(f"gpu_{name}", value * factor, both))
    return found


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
        return float(cell)
    except ValueError:
        return None


def installed(devices: Path) -> list[str]:
    """Return the PCI addresses of NVIDIA's GPUs that the kernel sees."""
    found = []
    for device in sorted(devices.glob("*")):
        with contextlib.suppress(OSError):
            kind = (device / "class").read_text().strip()
            if (device / "vendor").read_text().strip() == _NVIDIA and kind.startswith(_DISPLAY):
                found.append(_bus(device.name))
    return found


def run(*args: str) -> str:
    """Return a program's output; empty when it is missing, fails or times out."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(args, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout if done.returncode == 0 else ""
    return ""


def smi(fields: tuple[tuple[str, str, str, float], ...]) -> list[Sample]:
    """Return some metrics of every GPU."""
    names = ",".join(["index", *(field[0] for field in fields)])
    return gpu_rows(run("nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader,nounits"), fields)


def gpus() -> list[Sample]:
    """Return the metrics of the GPUs; none on a host without a GPU."""
    devices = installed(DEVICES)
    if not devices:
        return []
    drivers = run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split()
    journal = run("journalctl", "--dmesg", "--boot", "--output=cat", "--no-pager", "--grep=NVRM: Xid")
    return [
        Sample("gpus_installed", len(devices)),
        Sample("gpus_seen", len(drivers)),
        *(Sample("gpu_driver_info", 1, f'version="{version}"') for version in sorted(set(drivers))),
        *smi(_GPU),
        # A query of its own, since a GPU without this kind of memory rejects it.
        *smi(_ROWS),
        *xids(journal, devices),
    ]


def names() -> set[str]:
    """Return the name of every series that this program can write."""
    others = (
        *("host_metrics_time_seconds", "certificate_not_after_seconds", "bundle_expires_seconds", "runtime_info"),
        "bundle_info",
        *("gpus_installed", "gpus_seen", "gpu_driver_info", "gpu_xid_total"),
    )
    return {f"rackserve_{name}" for name in (*others, *(f"gpu_{field[1]}" for field in (*_GPU, *_ROWS)))}


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
