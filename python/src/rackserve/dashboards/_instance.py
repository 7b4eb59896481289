"""One instance, or a few side by side: its engine, its probe and its host."""

from __future__ import annotations

from typing import Final

from rackserve.dashboards._board import (
    ERRORS_LIMIT,
    HOST,
    NAME,
    ONE,
    STATE_NAMES,
    Board,
    Row,
    disk_left,
    key_figures,
    quantiles,
    state_code,
)
from rackserve.dashboards._parts import Query, lines, number, states, table_of

_KEY_FIGURES: Final = key_figures(
    ONE,
    "vllm_instance",
    (
        "Requests that the engine processes; the limit is max_num_seqs.",
        "Requests in its queue.",
        "A full cache is normal; see the preemptions below.",
        "Of the selected instances together.",
        "Of the selected instances together.",
    ),
)
_ENGINE: Final = Row(
    "Its engine",
    (
        lines(
            "Tokens",
            "Generated tokens and prompt tokens per second.",
            "short",
            [
                Query(f"rackserve:generation_tokens:rate5m{{{ONE}}}", f"{NAME} generated"),
                Query(f"rackserve:prompt_tokens:rate5m{{{ONE}}}", f"{NAME} prompt"),
            ],
        ),
        lines(
            "Queue time",
            "Until the engine begins with a request.",
            "s",
            quantiles("rackserve:queue_seconds:rate5m", ONE, "vllm_instance"),
        ),
        lines(
            "Request duration",
            "From arrival to the last token. The histogram of vLLM 0.6.4 ends at one minute.",
            "s",
            quantiles("rackserve:e2e_seconds:rate5m", ONE, "vllm_instance"),
        ),
        lines(
            "Prefix cache hits",
            "Share of prompt tokens, over 30 minutes. It falls when prompts differ near their beginning.",
            "percentunit",
            [Query(f"rackserve:prefix_hits:ratio30m{{{ONE}}}", NAME)],
            most=1,
        ),
        lines(
            "Preempted and rejected requests",
            "Per second: preempted as the KV cache was full, rejected as the queue was full (from 0.32.0 on).",
            "short",
            [
                Query(f"rackserve:preemptions:rate5m{{{ONE}}}", f"{NAME} preempted"),
                Query(f"rackserve:rejections:rate5m{{{ONE}}} or 0 * rackserve:running{{{ONE}}}", f"{NAME} rejected"),
            ],
        ),
        lines(
            "Answers with 5xx",
            "Share of its answers. vLLM 0.6.4 has no such counter.",
            "percentunit",
            [Query(f"rackserve:http_errors:ratio5m{{{ONE}}}", NAME)],
            limits=[ERRORS_LIMIT],
        ),
        lines(
            "Completed requests by reason",
            "Per second.",
            "reqps",
            [Query(f"sum by (finished_reason) (rackserve:finished:rate5m{{{ONE}}})", "{{finished_reason}}")],
            stacked=True,
        ),
        lines(
            "Process memory",
            "Resident memory of the API server's process, without GPU memory.",
            "bytes",
            [Query(f'process_resident_memory_bytes{{job="vllm", {ONE}}}', NAME)],
        ),
        lines(
            "Process CPU",
            "Cores in use.",
            "short",
            [Query(f'rate(process_cpu_seconds_total{{job="vllm", {ONE}}}[5m])', NAME)],
        ),
    ),
)
_PROBE: Final = Row(
    "Probe",
    (
        states(
            "State",
            "Reported by the probe, which requests a token every ten seconds: docs/reference/health.md.",
            Query(state_code(ONE), NAME),
            STATE_NAMES,
            width=10,
        ),
        lines(
            "Probe duration",
            "Duration of a probe run.",
            "s",
            [Query(f"rackserve_instance_probe_duration_seconds{{{ONE}}}", NAME)],
            width=8,
        ),
        number(
            "Uptime",
            "Since the process started; of several, the latest.",
            "s",
            Query(f'min(time() - process_start_time_seconds{{job="vllm", {ONE}}})'),
            width=3,
        ),
        number(
            "Restarts by the probe",
            "In the last day.",
            "none",
            Query(f"sum(increase(rackserve_instance_probe_restarts_total{{{ONE}}}[1d]))"),
            steps=((None, "green"), (1, "orange"), (3, "red")),
            width=3,
            decimals=0,
        ),
    ),
)
_HOST: Final = Row(
    "Host",
    (
        lines(
            "CPU in use",
            "Of all cores.",
            "percentunit",
            [Query(f'1 - avg by (host) (rate(node_cpu_seconds_total{{mode="idle", {HOST}}}[5m]))', "{{host}}")],
            width=6,
            most=1,
        ),
        lines(
            "Memory in use",
            "Share that is not available.",
            "percentunit",
            [Query(f"1 - node_memory_MemAvailable_bytes{{{HOST}}} / node_memory_MemTotal_bytes{{{HOST}}}", "{{host}}")],
            width=6,
            most=1,
        ),
        disk_left("Free share of each filesystem; the limits are those of DiskFilling and DiskFull.", width=6),
        lines(
            "Network",
            "Bytes per second, without the loopback.",
            "Bps",
            [
                Query(
                    f'sum by (host) (rate(node_network_receive_bytes_total{{device!="lo", {HOST}}}[5m]))',
                    "{{host}} in",
                ),
                Query(
                    f'sum by (host) (rate(node_network_transmit_bytes_total{{device!="lo", {HOST}}}[5m]))',
                    "{{host}} out",
                ),
            ],
            width=6,
        ),
    ),
)
_MADE_OF: Final = Row(
    "Configuration",
    (
        table_of(
            "Cache",
            "As vLLM reports it.",
            [Query(f"vllm:cache_config_info{{{ONE}}}")],
            {
                "host": "host",
                "vllm_instance": "instance",
                "model": "model",
                "release": "vLLM",
                "block_size": "block size",
                "num_gpu_blocks": "blocks",
                "cache_dtype": "type",
                "enable_prefix_caching": "prefix caching",
                "gpu_memory_utilization": "share of memory",
            },
            height=5,
        ),
    ),
)

INSTANCE: Final = Board(
    "instance",
    "Instance",
    "The engine, the probe and the host of one instance, or of a few side by side.",
    ("model", "host", "instance"),
    (_KEY_FIGURES, _ENGINE, _PROBE, _HOST, _MADE_OF),
)
