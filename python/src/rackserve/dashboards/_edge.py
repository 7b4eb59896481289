"""The edge: what comes in, and what goes out again."""

from __future__ import annotations

from typing import Final

from rackserve.dashboards._board import BUDGET, HERE, HOST, QUANTILES, TTFT_LIMIT, Board, Row, shares
from rackserve.dashboards._parts import BAD_IF_NONE, GOOD_UNLESS_ANY, Query, lines, number, states


def _percentiles(histogram: str, by: str) -> tuple[Query, ...]:
    """Return the median and the 95th and 99th percentile of one of the edge's histograms, over five minutes."""
    rates = f"sum by ({by}, le) (rate({histogram}_bucket{{{HERE}}}[5m]))"
    return tuple(Query(f"histogram_quantile({q}, {rates})", f"{{{{{by}}}}} {name}") for q, name in QUANTILES)


_NGINX: Final = Row(
    "nginx",
    (
        number(
            "Edges up",
            "nginx servers that their exporter reaches; without one no client is served (EdgeDown).",
            "none",
            Query(f"sum(nginx_up{{{HOST}}})"),
            steps=BAD_IF_NONE,
        ),
        number(
            "Requests",
            "Per second, over five minutes, of all paths.",
            "reqps",
            Query(f"sum(rate(nginx_http_requests_total{{{HOST}}}[5m]))"),
            decimals=2,
        ),
        number(
            "Open connections",
            "At present, including idle ones.",
            "none",
            Query(f"sum(nginx_connections_active{{{HOST}}})"),
        ),
        number(
            "Dropped connections",
            "In the last hour, because worker_connections was reached.",
            "none",
            Query(
                f"sum(increase(nginx_connections_accepted{{{HOST}}}[1h])"
                f" - increase(nginx_connections_handled{{{HOST}}}[1h]))"
            ),
            steps=GOOD_UNLESS_ANY,
            decimals=0,
        ),
        number(
            "Certificate",
            "Days until the first certificate expires (CertificateExpires).",
            "d",
            Query(f'min(rackserve_certificate_not_after_seconds{{path=~"/etc/nginx/.*", {HOST}}} - time()) / 86400'),
            steps=((None, "red"), (3, "orange"), (21, "green")),
            decimals=0,
        ),
    ),
)
_FLOW: Final = Row(
    "Incoming",
    (
        lines(
            "Requests",
            "Per second, by edge.",
            "reqps",
            [Query(f"rate(nginx_http_requests_total{{{HOST}}}[5m])", "{{host}}")],
            width=12,
        ),
        lines(
            "Connections",
            "writing: an answer is being sent; waiting: idle, kept open for the next request.",
            "short",
            [
                Query(f"nginx_connections_{kind}{{{HOST}}}", f"{{{{host}}}} {kind}")
                for kind in ("reading", "writing", "waiting")
            ],
            width=12,
            stacked=True,
        ),
    ),
)

_CLIENTS: Final = Row(
    "Answers",
    (
        lines(
            "Time to the first byte",
            "Of the body of a streamed answer: a client's wait for its first token, including the queue.",
            "s",
            _percentiles("rackserve_edge_first_byte_seconds", "model"),
            limits=[TTFT_LIMIT],
        ),
        lines(
            "Request duration",
            "Until the last byte, of answers with 2xx.",
            "s",
            _percentiles("rackserve_edge_request_seconds", "model"),
        ),
        lines(
            "Completed requests by status",
            "401: no valid key; 403: model not allowed; 429: over a limit; 5xx: no instance answered.",
            "reqps",
            [Query(f"sum by (status) (rate(rackserve_edge_requests_total{{{HERE}}}[5m]))", "{{status}}")],
            stacked=True,
        ),
        lines(
            "Late first bytes",
            "Share above prometheus_ttft_limit (FirstTokenBudgetBurnFast).",
            "percentunit",
            shares("edge_ttft_late"),
            limits=BUDGET,
        ),
        lines(
            "Answers with 5xx",
            "Share of the requests for each model (EdgeErrorBudgetBurnFast).",
            "percentunit",
            shares("edge_errors"),
            limits=[
                Query("rackserve:limit:availability_budget", "budget"),
                Query("14.4 * rackserve:limit:availability_budget", "pages"),
            ],
        ),
        lines(
            "Requests by client",
            "Per second; the names are those in nginx_clients.",
            "reqps",
            [Query(f"sum by (client) (rate(rackserve_edge_requests_total{{{HERE}}}[5m]))", "{{client}}")],
            stacked=True,
        ),
        lines(
            "Sent to clients",
            "Bytes per second, by client.",
            "Bps",
            [Query(f"sum by (client) (rate(rackserve_edge_sent_bytes_total{{{HERE}}}[5m]))", "{{client}}")],
        ),
        lines(
            "Open requests by client",
            "At present; the limit of a client is its `concurrent` in nginx_clients.",
            "short",
            [Query(f"sum by (client) (rackserve_edge_open_requests{{{HOST}}})", "{{client}}")],
        ),
        lines(
            "Dropped samples",
            "Of the edge's own metrics, because their memory was full, in 15 minutes (EdgeMetricsDropped).",
            "short",
            [Query(f"increase(rackserve_edge_dropped_samples_total{{{HOST}}}[15m])", "{{host}}")],
        ),
    ),
)
_BEHIND: Final = Row(
    "Instances as seen by the edge",
    (
        lines(
            "Forwarded requests",
            "Per second, by instance.",
            "reqps",
            [Query(f"sum by (upstream) (rate(rackserve_edge_upstream_requests_total{{{HOST}}}[5m]))", "{{upstream}}")],
            stacked=True,
        ),
        lines(
            "Time to the first byte, p95",
            "From the forwarding of the request.",
            "s",
            [
                Query(
                    "histogram_quantile(0.95, sum by (upstream, le) "
                    f"(rate(rackserve_edge_upstream_first_byte_seconds_bucket{{{HOST}}}[5m])))",
                    "{{upstream}}",
                )
            ],
            limits=[TTFT_LIMIT],
        ),
        states(
            "Rotation",
            "Instances that an operator (rackserve drain) or a rollout has drained.",
            Query(f"max by (upstream) (rackserve_edge_drained{{{HOST}}})", "{{upstream}}"),
            {0: ("in", "green"), 1: ("drained", "orange")},
            width=8,
        ),
    ),
)

EDGE: Final = Board(
    "edge",
    "Edge",
    "Requests, answers and latencies of clients, and nginx itself.",
    ("model", "host"),
    (_CLIENTS, _NGINX, _FLOW, _BEHIND),
)
