"""The whole fleet: what its clients feel, how much it does, and which instance is how."""

from __future__ import annotations

from typing import Final

from rackserve.dashboards._board import (
    BUDGET,
    ERRORS_LIMIT,
    HERE,
    MODEL,
    NAME,
    STATE_NAMES,
    Board,
    Row,
    key_figures,
    shares,
    state_code,
)
from rackserve.dashboards._parts import BAD_IF_NONE, GOOD_UNLESS_ANY, Query, lines, number, states, table_of

_KEY_FIGURES: Final = key_figures(
    HERE,
    "model",
    (
        "Requests that the engines process. The limit of each instance is its max_num_seqs.",
        "Requests in the engines' queues. More waiting than running for five minutes is QueueGrowing.",
        "Of each instance. A full cache is normal; together with preemptions it is KvPressure.",
        "From the request's arrival at the engine. The limit is prometheus_ttft_limit, which alerts use too.",
        "From one token of an answer to the next. The limit is prometheus_itl_limit, which alerts use too.",
    ),
    count="sum by (model) ({})",
    legend="{{model}}",
)
_GLANCE: Final = Row(
    "At a glance",
    (
        number(
            "Instances up",
            "Instances whose metrics were read at the last scrape.",
            "none",
            Query(f'sum(up{{job="vllm", {HERE}}})'),
            steps=BAD_IF_NONE,
        ),
        number(
            "Instances not serving",
            "Instances whose probe reports neither ready nor busy.",
            "none",
            Query(f'sum(rackserve_instance_state{{{HERE}, state!~"ready|busy"}})'),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Alerts firing",
            "Of severity critical and warning, in the whole site. docs/how-to/alerts.md describes what to do.",
            "none",
            Query('count(ALERTS{alertstate="firing", severity=~"critical|warning"}) or vector(0)'),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Generated tokens",
            "Per second, over five minutes.",
            "none",
            Query(f"sum(rackserve:generation_tokens:rate5m{{{HERE}}})"),
            decimals=1,
        ),
        number(
            "Completed requests",
            "Per second, over five minutes.",
            "reqps",
            Query(f"sum(rackserve:finished:rate5m{{{HERE}}})"),
            decimals=2,
        ),
        number(
            "Error budget burn rate",
            "Late first tokens of the worst model in the last hour, as a multiple of what prometheus_slo allows. "
            "From 14.4 on FirstTokenBudgetBurnFast pages.",
            "x",
            Query(f"max(rackserve:ttft_late:ratio1h{{{MODEL}}}) / scalar(rackserve:limit:slo_budget)"),
            steps=((None, "green"), (1, "orange"), (14.4, "red")),
            decimals=1,
        ),
    ),
)
_BUDGET: Final = Row(
    "Service level objectives",
    (
        lines(
            "Late first tokens",
            "Share above the limit, over five minutes and an hour. Both above 14.4 times the budget is "
            "FirstTokenBudgetBurnFast.",
            "percentunit",
            shares("ttft_late"),
            limits=BUDGET,
        ),
        lines(
            "Late tokens after the first",
            "Share above the limit, over five minutes and an hour (InterTokenBudgetBurnFast).",
            "percentunit",
            shares("itl_late"),
            limits=BUDGET,
        ),
        lines(
            "Answers with 5xx",
            "Share of each instance's answers. vLLM 0.6.4 has no such counter.",
            "percentunit",
            [Query(f"rackserve:http_errors:ratio5m{{{HERE}}}", NAME)],
            limits=[ERRORS_LIMIT],
        ),
    ),
)
_WORK: Final = Row(
    "Throughput",
    (
        lines(
            "Generated tokens by instance",
            "Per second, by instance.",
            "short",
            [Query(f"rackserve:generation_tokens:rate5m{{{HERE}}}", NAME)],
            stacked=True,
        ),
        lines(
            "Prompt tokens",
            "Per second, by instance, including tokens found in the prefix cache.",
            "short",
            [Query(f"rackserve:prompt_tokens:rate5m{{{HERE}}}", NAME)],
            stacked=True,
        ),
        lines(
            "Completed requests by reason",
            "stop and length are answers; abort is a client that disconnected, not an error of the server.",
            "reqps",
            [
                Query(
                    f"sum by (finished_reason) (rackserve:finished:rate5m{{{HERE}}})",
                    "{{finished_reason}}",
                )
            ],
            stacked=True,
        ),
    ),
)
_INSTANCES: Final = Row(
    "Instances",
    (
        table_of(
            "Instances",
            "Model, release, state and load of each instance.",
            [
                Query(f"rackserve:running{{{HERE}}}"),
                Query(f"rackserve:waiting{{{HERE}}}"),
                Query(f"rackserve:kv_usage{{{HERE}}}"),
                Query(f"rackserve:generation_tokens:rate5m{{{HERE}}}"),
                Query(f"max by (host, vllm_instance, state) (rackserve_instance_state{{{HERE}}} == 1)"),
            ],
            {
                "host": "host",
                "vllm_instance": "instance",
                "model": "model",
                "release": "vLLM",
                "state": "state",
                "Value #A": "running",
                "Value #B": "waiting",
                "Value #C": "KV cache",
                "Value #D": "tokens/s",
            },
            units={"KV cache": "percentunit"},
            width=14,
        ),
        states(
            "State",
            "Reported by the probe on its host, which requests a token every ten seconds: docs/reference/health.md.",
            Query(state_code(HERE), NAME),
            STATE_NAMES,
            width=10,
        ),
    ),
)

FLEET: Final = Board(
    "fleet",
    "Fleet",
    "Service levels, throughput, and the state of each instance.",
    ("model", "host"),
    (_KEY_FIGURES, _GLANCE, _BUDGET, _WORK, _INSTANCES),
)
