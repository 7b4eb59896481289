"""GPUs: load, throttling, and errors that their drivers report."""

from __future__ import annotations

from typing import Final

from rackserve.dashboards._board import HOST, Board, Row
from rackserve.dashboards._parts import GOOD_UNLESS_ANY, Query, lines, number, states, table_of

_GPU: Final = "{{host}} GPU {{gpu}}"

_GLANCE: Final = Row(
    "At a glance",
    (
        number(
            "GPUs present",
            "GPUs that the driver lists.",
            "none",
            Query(f"sum(rackserve_gpus_seen{{{HOST}}})"),
        ),
        number(
            "GPUs lost",
            "On the PCI bus, but not listed by the driver (GpuLost).",
            "none",
            Query(f"sum(rackserve_gpus_installed{{{HOST}}} - rackserve_gpus_seen{{{HOST}}})"),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Throttled GPUs",
            "By temperature or power supply (GpuThrottled). A configured power limit does not count.",
            "none",
            Query(f"sum(max by (host, gpu) (rackserve_gpu_throttled{{{HOST}}}))"),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Hardware faults",
            "Xid errors of the hardware in the last day (GpuXid).",
            "none",
            Query(f"sum(increase(rackserve_gpu_xid_total{{{HOST}}}[1d]))"),
            steps=GOOD_UNLESS_ANY,
            decimals=0,
        ),
        number(
            "Power",
            "Of all GPUs together.",
            "watt",
            Query(f"sum(rackserve_gpu_power_watts{{{HOST}}})"),
            decimals=0,
        ),
        number(
            "Driver versions",
            "More than one for an hour is DriverDrift.",
            "none",
            Query(f"count(count by (version) (rackserve_gpu_driver_info{{{HOST}}}))"),
            steps=((None, "green"), (2, "orange")),
        ),
    ),
)
_WORK: Final = Row(
    "Load",
    (
        lines(
            "Utilization",
            "Share of the time in which any kernel ran. 100 % does not mean that the GPU has no capacity left.",
            "percentunit",
            [Query(f"rackserve_gpu_utilization_ratio{{{HOST}}}", _GPU)],
            most=1,
        ),
        lines(
            "Memory in use",
            "vLLM allocates its share at the start, so a flat line is normal; KV cache in use is in Fleet.",
            "percentunit",
            [Query(f"rackserve_gpu_memory_used_bytes{{{HOST}}} / rackserve_gpu_memory_total_bytes", _GPU)],
            most=1,
        ),
        lines("Power", "Drawn by each GPU.", "watt", [Query(f"rackserve_gpu_power_watts{{{HOST}}}", _GPU)]),
        lines(
            "Temperature",
            "Of the chip.",
            "celsius",
            [Query(f"rackserve_gpu_temperature_celsius{{{HOST}}}", _GPU)],
        ),
        lines(
            "Clock",
            "Of the multiprocessors. It falls when the GPU is idle or throttled.",
            "hertz",
            [Query(f"rackserve_gpu_clock_hertz{{{HOST}}}", _GPU)],
        ),
        states(
            "Throttling",
            "By cause.",
            Query(f"rackserve_gpu_throttled{{{HOST}}}", "{{host}} GPU {{gpu}} {{reason}}"),
            {0: ("no", "green"), 1: ("throttled", "red")},
            width=8,
        ),
    ),
)
_HEALTH: Final = Row(
    "Health",
    (
        lines(
            "Memory errors",
            "ECC errors since the driver was loaded. Uncorrected ones end the process concerned (GpuEccErrors).",
            "none",
            [
                Query(f"rackserve_gpu_ecc_corrected_total{{{HOST}}}", f"{_GPU} corrected"),
                Query(f"rackserve_gpu_ecc_uncorrected_total{{{HOST}}}", f"{_GPU} not corrected"),
            ],
        ),
        lines(
            "Row remapping",
            "1 where rows are remapped at the next reset, or can no longer be remapped (GpuRowRemap).",
            "none",
            [
                Query(f"rackserve_gpu_rows_remap_pending{{{HOST}}}", f"{_GPU} waiting"),
                Query(f"rackserve_gpu_rows_remap_failed{{{HOST}}}", f"{_GPU} failed"),
            ],
        ),
        table_of(
            "Drivers",
            "Version and number of GPUs on each host.",
            [
                Query(f"max by (host, version) (rackserve_gpu_driver_info{{{HOST}}})"),
                Query(f"max by (host) (rackserve_gpus_seen{{{HOST}}})"),
            ],
            {"host": "host", "version": "driver", "Value #B": "GPUs"},
            width=8,
        ),
    ),
)

GPU: Final = Board(
    "gpu",
    "GPU",
    "Load, memory, power, temperature and faults of every GPU.",
    ("host",),
    (_GLANCE, _WORK, _HEALTH),
)
