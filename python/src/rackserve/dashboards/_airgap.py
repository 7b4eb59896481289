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
            "Bundles altered",
            "Hosts whose bundle is not what was signed (BundleAltered). Nothing until the first weekly comparison.",
            "none",
            Query(f"sum(rackserve_bundle_intact{{{HOST}}} == bool 0)"),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Releases adrift",
            "Hosts that do not run the release of vLLM that the inventory wants (ReleaseDrift).",
            "none",
            Query(_DRIFT),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Bundles in use",
            "Versions of the bundle in the rack; more than one while an upgrade is under way.",
            "none",
            Query(f"count(count by (bundle, version) (rackserve_bundle_info{{{HOST}}}))"),
            steps=((None, "green"), (2, "orange")),
        ),
        number(
            "Bundle's last day",
            "Days until the first bundle ends; after that no run takes it. What runs goes on (BundleExpires).",
            "d",
            Query(f"min(rackserve_bundle_expires_seconds{{{HOST}}} - time()) / 86400"),
            steps=_DAYS,
            decimals=0,
        ),
        number(
            "Certificates",
            "Days that the one that ends first still holds.",
            "d",
            Query(f"min(rackserve_certificate_not_after_seconds{{{HOST}}} - time()) / 86400"),
            steps=_DAYS,
            decimals=0,
        ),
        number(
            "Clock",
            "The host that is furthest from the clock of Prometheus's (ClockSkew from a second on).",
            "s",
            Query(f"max(abs(node_time_seconds{{{HOST}}} - timestamp(node_time_seconds{{{HOST}}})))"),
            steps=((None, "green"), (1, "red")),
            decimals=2,
        ),
    ),
)
_RELEASES: Final = Row(
    "What is installed",
    (
        table_of(
            "Releases of vLLM",
            "Which release each host's link points at, and how many instances there are scraped with the one that the "
            "inventory wants.",
            [
                Query(f"max by (host, release) (rackserve_runtime_info{{{HOST}}})"),
                Query(f'count by (host, release) (up{{job="vllm", {HOST}}})'),
            ],
            {"host": "host", "release": "vLLM", "Value #A": "installed", "Value #B": "instances"},
            width=12,
        ),
        table_of(
            "Bundles",
            "What each host took in, whether the weekly comparison found every byte of it, and when that was.",
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
                "Value #C": "compared, ago",
            },
            units={"compared, ago": "s", "intact": "bool_yes_no"},
            width=12,
        ),
    ),
)
_TIME: Final = Row(
    "What runs out",
    (
        lines(
            "Certificates",
            "Days that each still holds; the limit is prometheus_certificate_days.",
            "d",
            [
                Query(
                    f"(rackserve_certificate_not_after_seconds{{{HOST}}} - time()) / 86400",
                    "{{host}} {{path}}",
                )
            ],
            limits=[Query("rackserve:limit:certificate_seconds / 86400", "warning")],
        ),
        disk_left("Free share of each filesystem, where releases, models and bundles pile up."),
        lines(
            "Age of what hosts tell",
            "Of the timer that looks at certificates, bundle, release and GPUs; five minutes are HostMetricsStale.",
            "s",
            [Query(f"time() - rackserve_host_metrics_time_seconds{{{HOST}}}", "{{host}}")],
        ),
    ),
)
_WATCH: Final = Row(
    "Who watches",
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
            "Taken in a second.",
            "short",
            [Query("sum(rate(prometheus_tsdb_head_samples_appended_total[5m]))", "samples")],
            width=6,
        ),
        lines(
            "Prometheus's own disk",
            "Of its finished blocks, the first after two hours; prometheus_retention_size ends it.",
            "bytes",
            [Query("sum(prometheus_tsdb_storage_blocks_bytes)", "blocks")],
            width=6,
        ),
    ),
)

AIRGAP: Final = Board(
    "airgap",
    "Air gap",
    "Releases, bundles and drift: what was carried in, what runs out, and who watches it.",
    ("host",),
    (_GLANCE, _RELEASES, _TIME, _WATCH),
)
