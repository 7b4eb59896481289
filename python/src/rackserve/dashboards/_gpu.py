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
            "GPUs seen",
            "GPUs that the driver shows.",
            "none",
            Query(f"sum(rackserve_gpus_seen{{{HOST}}})"),
        ),
        number(
            "GPUs lost",
            "On the PCI bus, and not shown by the driver (GpuLost).",
            "none",
            Query(f"sum(rackserve_gpus_installed{{{HOST}}} - rackserve_gpus_seen{{{HOST}}})"),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "GPUs slowed down",
            "By heat or for want of power (GpuThrottled). A power limit that was set on purpose does not count.",
            "none",
            Query(f"sum(max by (host, gpu) (rackserve_gpu_throttled{{{HOST}}}))"),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Faults reported",
            "Xid of the hardware in the last day (GpuXid).",
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
            "Versions of the driver",
            "More than one for an hour is DriverDrift.",
            "none",
            Query(f"count(count by (version) (rackserve_gpu_driver_info{{{HOST}}}))"),
            steps=((None, "green"), (2, "orange")),
        ),
    ),
)
_WORK: Final = Row(
    "What they do",
    (
        lines(
            "Time in use",
            "Share of the time in which anything ran on the GPU. 100 % does not mean that it could not do more.",
            "percentunit",
            [Query(f"rackserve_gpu_utilization_ratio{{{HOST}}}", _GPU)],
            most=1,
        ),
        lines(
            "Memory in use",
            "vLLM takes its share at the start, so a flat line is what is wanted; KV cache in use is in Fleet.",
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
            "Of the multiprocessors. It falls when the GPU has nothing to do, and when it is slowed down.",
            "hertz",
            [Query(f"rackserve_gpu_clock_hertz{{{HOST}}}", _GPU)],
        ),
        states(
            "Slowed down",
            "By which cause, and when.",
            Query(f"rackserve_gpu_throttled{{{HOST}}}", "{{host}} GPU {{gpu}} {{reason}}"),
            {0: ("no", "green"), 1: ("slowed", "red")},
            width=8,
        ),
    ),
)
_HEALTH: Final = Row(
    "How they are",
    (
        lines(
            "Memory errors",
            "Since the driver was loaded. Corrected ones cost nothing; others end what ran (GpuEccErrors).",
            "none",
            [
                Query(f"rackserve_gpu_ecc_corrected_total{{{HOST}}}", f"{_GPU} corrected"),
                Query(f"rackserve_gpu_ecc_uncorrected_total{{{HOST}}}", f"{_GPU} not corrected"),
            ],
        ),
        lines(
            "Rows of memory to replace",
            "1 where rows wait for the next reset, or cannot be replaced any more (GpuRowRemap).",
            "none",
            [
                Query(f"rackserve_gpu_rows_remap_pending{{{HOST}}}", f"{_GPU} waiting"),
                Query(f"rackserve_gpu_rows_remap_failed{{{HOST}}}", f"{_GPU} failed"),
            ],
        ),
        table_of(
            "Drivers",
            "Version on each host, and how many GPUs it shows.",
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
