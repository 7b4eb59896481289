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
    quantiles,
    state_code,
    the_five,
)
from rackserve.dashboards._parts import Query, lines, number, states, table_of

_FIVE: Final = the_five(
    ONE,
    "vllm_instance",
    (
        "Requests that the engine works on; max_num_seqs is the most that it takes at once.",
        "Requests that it has not begun.",
        "A full cache is what it is for; see the preemptions below.",
        "Of the selected instances together.",
        "Of the selected instances together.",
    ),
)
_ENGINE: Final = Row(
    "Its engine",
    (
        lines(
            "Tokens",
            "Generated and read, in a second.",
            "short",
            [
                Query(f"rackserve:generation_tokens:rate5m{{{ONE}}}", f"{NAME} generated"),
                Query(f"rackserve:prompt_tokens:rate5m{{{ONE}}}", f"{NAME} prompt"),
            ],
        ),
        lines(
            "Time in the queue",
            "Before the engine begins with a request.",
            "s",
            quantiles("rackserve:queue_seconds:rate5m", ONE, "vllm_instance"),
        ),
        lines(
            "Time of a whole request",
            "From its arrival to its last token. Until 0.6.4 vLLM's own histogram ends at a minute.",
            "s",
            quantiles("rackserve:e2e_seconds:rate5m", ONE, "vllm_instance"),
        ),
        lines(
            "Prefixes found in the cache",
            "Share of the prompts' tokens, over half an hour. It falls when a prompt is changed near its beginning.",
            "percentunit",
            [Query(f"rackserve:prefix_hits:ratio30m{{{ONE}}}", NAME)],
            most=1,
        ),
        lines(
            "Requests thrown out",
            "Preempted for want of KV cache, and turned away because the queue is full (counted from 0.32.0 on), in a "
            "second.",
            "short",
            [
                Query(f"rackserve:preemptions:rate5m{{{ONE}}}", f"{NAME} preempted"),
                Query(f"rackserve:rejections:rate5m{{{ONE}}} or 0 * rackserve:running{{{ONE}}}", f"{NAME} turned away"),
            ],
        ),
        lines(
            "Answers with 5xx",
            "Share of its answers. vLLM 0.6.4 does not count its answers.",
            "percentunit",
            [Query(f"rackserve:http_errors:ratio5m{{{ONE}}}", NAME)],
            limits=[ERRORS_LIMIT],
        ),
        lines(
            "Requests ended, by reason",
            "In a second.",
            "reqps",
            [Query(f"sum by (finished_reason) (rackserve:finished:rate5m{{{ONE}}})", "{{finished_reason}}")],
            stacked=True,
        ),
        lines(
            "Memory of its process",
            "Resident memory of the process that serves, without that of the GPU.",
            "bytes",
            [Query(f'process_resident_memory_bytes{{job="vllm", {ONE}}}', NAME)],
        ),
        lines(
            "CPU of its process",
            "Cores in use.",
            "short",
            [Query(f'rate(process_cpu_seconds_total{{job="vllm", {ONE}}}[5m])', NAME)],
        ),
    ),
)
_PROBE: Final = Row(
    "Its probe",
    (
        states(
            "State",
            "What the probe says, which asks for a token every few seconds: docs/reference/health.md.",
            Query(state_code(ONE), NAME),
            STATE_NAMES,
            width=10,
        ),
        lines(
            "Time of a probe",
            "How long the probe waited for its token.",
            "s",
            [Query(f"rackserve_instance_probe_duration_seconds{{{ONE}}}", NAME)],
            width=8,
        ),
        number(
            "Up for",
            "Since its process started; the one that started last.",
            "s",
            Query(f'min(time() - process_start_time_seconds{{job="vllm", {ONE}}})'),
            width=3,
        ),
        number(
            "Killed by its probe",
            "Times in the last day.",
            "none",
            Query(f"sum(increase(rackserve_instance_probe_restarts_total{{{ONE}}}[1d]))"),
            steps=((None, "green"), (1, "orange"), (3, "red")),
            width=3,
            decimals=0,
        ),
    ),
)
_HOST: Final = Row(
    "Its host",
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
            "What is neither free nor to be had at once.",
            "percentunit",
            [Query(f"1 - node_memory_MemAvailable_bytes{{{HOST}}} / node_memory_MemTotal_bytes{{{HOST}}}", "{{host}}")],
            width=6,
            most=1,
        ),
        disk_left("Free share of each filesystem; the limits are those of DiskFilling and DiskFull.", width=6),
        lines(
            "Network",
            "Bytes in a second, without the loopback.",
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
    "What it was started with",
    (
        table_of(
            "Cache",
            "As vLLM says it of its own cache.",
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
    (_FIVE, _ENGINE, _PROBE, _HOST, _MADE_OF),
)
