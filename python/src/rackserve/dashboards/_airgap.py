"""Releases and bundles on the hosts, and where a host differs from the inventory."""

from __future__ import annotations

from typing import Final

from rackserve.dashboards._board import HOST, Board, Row, disk_left
from rackserve.dashboards._parts import GOOD_UNLESS_ANY, Query, Steps, lines, number, states, table_of

_DAYS: Final[Steps] = ((None, "red"), (3, "orange"), (21, "green"))
_WANTED: Final = f'group by (host, release) (up{{job="vllm", {HOST}}})'
_DRIFT: Final = (
    f"count({_WANTED} unless on (host, release) rackserve_runtime_info "
    "and on (host) group by (host) (rackserve_runtime_info)) or vector(0)"
)

_GLANCE: Final = Row(
    "At a glance",
    (
        number(
            "Altered bundles",
            "Hosts whose bundle differs from its manifest (BundleAltered). No value until the first comparison.",
            "none",
            Query(f"sum(rackserve_bundle_intact{{{HOST}}} == bool 0)"),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Release drift",
            "Hosts that run another release of vLLM than the inventory sets (ReleaseDrift).",
            "none",
            Query(_DRIFT),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Bundles in use",
            "Versions of the bundle on all hosts; more than one during an upgrade.",
            "none",
            Query(f"count(count by (bundle, version) (rackserve_bundle_info{{{HOST}}}))"),
            steps=((None, "green"), (2, "orange")),
        ),
        number(
            "Bundle expiry",
            "Days until the first bundle expires (BundleExpires). Afterwards no run accepts it.",
            "d",
            Query(f"min(rackserve_bundle_expires_seconds{{{HOST}}} - time()) / 86400"),
            steps=_DAYS,
            decimals=0,
        ),
        number(
            "Certificates",
            "Days until the first certificate expires.",
            "d",
            Query(f"min(rackserve_certificate_not_after_seconds{{{HOST}}} - time()) / 86400"),
            steps=_DAYS,
            decimals=0,
        ),
        number(
            "Clock",
            "Largest difference between a host's clock and Prometheus's (ClockSkew from one second on).",
            "s",
            Query(f"max(abs(node_time_seconds{{{HOST}}} - timestamp(node_time_seconds{{{HOST}}})))"),
            steps=((None, "green"), (1, "red")),
            decimals=2,
        ),
    ),
)
_RELEASES: Final = Row(
    "Installed",
    (
        table_of(
            "Releases of vLLM",
            "The release that is active on each host, and the number of scraped instances with the release that the "
            "inventory sets.",
            [
                Query(f"max by (host, release) (rackserve_runtime_info{{{HOST}}})"),
                Query(f'count by (host, release) (up{{job="vllm", {HOST}}})'),
            ],
            {"host": "host", "release": "vLLM", "Value #A": "installed", "Value #B": "instances"},
            width=12,
        ),
        table_of(
            "Bundles",
            "The bundle on each host, whether it matches its signed manifest, and the time since that was compared.",
            [
                Query(f"max by (host, bundle, version) (rackserve_bundle_info{{{HOST}}})"),
                Query(f"max by (host) (rackserve_bundle_intact{{{HOST}}})"),
                Query(f"max by (host) (time() - rackserve_bundle_checked_time_seconds{{{HOST}}})"),
            ],
            {
                "host": "host",
                "bundle": "bundle",
                "version": "version",
                "Value #B": "intact",
                "Value #C": "since compared",
            },
            units={"since compared": "s", "intact": "bool_yes_no"},
            width=12,
        ),
    ),
)
_TIME: Final = Row(
    "Expiry and disk space",
    (
        lines(
            "Certificates",
            "Days until each expires; the limit is prometheus_certificate_days.",
            "d",
            [
                Query(
                    f"(rackserve_certificate_not_after_seconds{{{HOST}}} - time()) / 86400",
                    "{{host}} {{path}}",
                )
            ],
            limits=[Query("rackserve:limit:certificate_seconds / 86400", "warning")],
        ),
        disk_left("Free share of each filesystem; releases, models and bundles fill it."),
        lines(
            "Age of host metrics",
            "Since the timer last read certificates, bundle, release and GPUs (HostMetricsStale from five minutes on).",
            "s",
            [Query(f"time() - rackserve_host_metrics_time_seconds{{{HOST}}}", "{{host}}")],
        ),
    ),
)
_WATCH: Final = Row(
    "Monitoring",
    (
        states(
            "Scrapes",
            "Whether Prometheus reached each exporter and engine.",
            Query("min by (job, host) (up)", "{{job}} {{host}}"),
            {0: ("down", "red"), 1: ("up", "green")},
            width=12,
        ),
        lines(
            "Samples",
            "Samples per second.",
            "short",
            [Query("sum(rate(prometheus_tsdb_head_samples_appended_total[5m]))", "samples")],
            width=6,
        ),
        lines(
            "Prometheus storage",
            "Size of completed blocks, the first after two hours. The limit is prometheus_retention_size.",
            "bytes",
            [Query("sum(prometheus_tsdb_storage_blocks_bytes)", "blocks")],
            width=6,
        ),
    ),
)

AIRGAP: Final = Board(
    "airgap",
    "Air gap",
    "Releases, bundles, drift, expiry dates and the monitoring itself.",
    ("host",),
    (_GLANCE, _RELEASES, _TIME, _WATCH),
)
