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
            "Edges answering",
            "nginx that the exporter reaches; without one nobody is served (EdgeDown).",
            "none",
            Query(f"sum(nginx_up{{{HOST}}})"),
            steps=BAD_IF_NONE,
        ),
        number(
            "Requests",
            "In a second, over five minutes, of every path.",
            "reqps",
            Query(f"sum(rate(nginx_http_requests_total{{{HOST}}}[5m]))"),
            decimals=2,
        ),
        number(
            "Connections open",
            "Now, those at rest among them.",
            "none",
            Query(f"sum(nginx_connections_active{{{HOST}}})"),
        ),
        number(
            "Connections dropped",
            "In the last hour, for want of worker_connections.",
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
            "Days that the one that ends first still holds (CertificateExpires).",
            "d",
            Query(f'min(rackserve_certificate_not_after_seconds{{path=~"/etc/nginx/.*", {HOST}}} - time()) / 86400'),
            steps=((None, "red"), (3, "orange"), (21, "green")),
            decimals=0,
        ),
    ),
)
_FLOW: Final = Row(
    "What comes in",
    (
        lines(
            "Requests",
            "In a second, by edge.",
            "reqps",
            [Query(f"rate(nginx_http_requests_total{{{HOST}}}[5m])", "{{host}}")],
            width=12,
        ),
        lines(
            "Connections",
            "writing: an answer is on its way; waiting: kept open for the next request.",
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
    "What clients get",
    (
        lines(
            "Time to the first byte",
            "Of the body of a streamed answer: what a client waits for its first token, the queue included.",
            "s",
            _percentiles("rackserve_edge_first_byte_seconds", "model"),
            limits=[TTFT_LIMIT],
        ),
        lines(
            "Time of a request",
            "To the last byte, of answers with 2xx.",
            "s",
            _percentiles("rackserve_edge_request_seconds", "model"),
        ),
        lines(
            "Requests ended, by status",
            "401: no key; 403: not this model; 429: too many; 5xx: nobody answered.",
            "reqps",
            [Query(f"sum by (status) (rate(rackserve_edge_requests_total{{{HERE}}}[5m]))", "{{status}}")],
            stacked=True,
        ),
        lines(
            "Late first bytes",
            "Share that came after prometheus_ttft_limit (FirstTokenBudgetBurnFast).",
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
                Query("14.4 * rackserve:limit:availability_budget", "somebody is called"),
            ],
        ),
        lines(
            "Requests, by client",
            "In a second; the names of nginx_clients.",
            "reqps",
            [Query(f"sum by (client) (rate(rackserve_edge_requests_total{{{HERE}}}[5m]))", "{{client}}")],
            stacked=True,
        ),
        lines(
            "Sent to clients",
            "Bytes in a second, by client.",
            "Bps",
            [Query(f"sum by (client) (rate(rackserve_edge_sent_bytes_total{{{HERE}}}[5m]))", "{{client}}")],
        ),
        lines(
            "Open requests, by client",
            "Now; the limit of a client is its `concurrent` in nginx_clients.",
            "short",
            [Query(f"sum by (client) (rackserve_edge_open_requests{{{HOST}}})", "{{client}}")],
        ),
        lines(
            "Samples dropped",
            "Of the edge's own metrics, for lack of memory, in the last quarter of an hour (EdgeMetricsDropped).",
            "short",
            [Query(f"increase(rackserve_edge_dropped_samples_total{{{HOST}}}[15m])", "{{host}}")],
        ),
    ),
)
_BEHIND: Final = Row(
    "Instances, as the edge finds them",
    (
        lines(
            "Requests handed on",
            "In a second, by instance.",
            "reqps",
            [Query(f"sum by (upstream) (rate(rackserve_edge_upstream_requests_total{{{HOST}}}[5m]))", "{{upstream}}")],
            stacked=True,
        ),
        lines(
            "Time to the first byte, p95",
            "From when the instance was asked.",
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
            "Which instances an operator keeps out (rackserve drain).",
            Query(f"max by (upstream) (rackserve_edge_drained{{{HOST}}})", "{{upstream}}"),
            {0: ("in", "green"), 1: ("drained", "orange")},
            width=8,
        ),
    ),
)

EDGE: Final = Board(
    "edge",
    "Edge",
    "What clients get, and what of nginx and its certificate they get it by.",
    ("model", "host"),
    (_CLIENTS, _NGINX, _FLOW, _BEHIND),
)
