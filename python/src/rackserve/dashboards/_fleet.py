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
    shares,
    state_code,
    the_five,
)
from rackserve.dashboards._parts import BAD_IF_NONE, GOOD_UNLESS_ANY, Query, lines, number, states, table_of

_FIVE: Final = the_five(
    HERE,
    "model",
    (
        "Requests that the engines work on. max_num_seqs of each instance is the most that it takes at once.",
        "Requests that no engine has begun. More waiting than running for five minutes is QueueGrowing.",
        "Of each instance. A full cache is what it is for; with preemptions beside it, it is KvPressure.",
        "From the request's arrival at the engine. The limit is prometheus_ttft_limit, which the alerts go by.",
        "From one token of an answer to the next. The limit is prometheus_itl_limit, which the alerts go by.",
    ),
    count="sum by (model) ({})",
    legend="{{model}}",
)
_GLANCE: Final = Row(
    "At a glance",
    (
        number(
            "Instances answering",
            "Instances whose metrics were read at the last scrape.",
            "none",
            Query(f'sum(up{{job="vllm", {HERE}}})'),
            steps=BAD_IF_NONE,
        ),
        number(
            "Instances out",
            "Instances that their probe calls neither ready nor busy.",
            "none",
            Query(f'sum(rackserve_instance_state{{{HERE}, state!~"ready|busy"}})'),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Alerts firing",
            "Of severity critical and warning, in the whole site. docs/how-to/alerts.md says what to do.",
            "none",
            Query('count(ALERTS{alertstate="firing", severity=~"critical|warning"}) or vector(0)'),
            steps=GOOD_UNLESS_ANY,
        ),
        number(
            "Generated",
            "Tokens in a second, over five minutes.",
            "none",
            Query(f"sum(rackserve:generation_tokens:rate5m{{{HERE}}})"),
            decimals=1,
        ),
        number(
            "Requests ended",
            "In a second, over five minutes.",
            "reqps",
            Query(f"sum(rackserve:finished:rate5m{{{HERE}}})"),
            decimals=2,
        ),
        number(
            "Error budget burnt",
            "How many times faster than prometheus_slo allows, over the last hour, by first tokens of the model that "
            "is worst. From 14.4 on somebody is called.",
            "x",
            Query(f"max(rackserve:ttft_late:ratio1h{{{MODEL}}}) / scalar(rackserve:limit:slo_budget)"),
            steps=((None, "green"), (1, "orange"), (14.4, "red")),
            decimals=1,
        ),
    ),
)
_BUDGET: Final = Row(
    "What clients were promised",
    (
        lines(
            "Late first tokens",
            "Share that came after the limit, over five minutes and an hour. Both above 14.4 times the budget call "
            "somebody (FirstTokenBudgetBurnFast).",
            "percentunit",
            shares("ttft_late"),
            limits=BUDGET,
        ),
        lines(
            "Late further tokens",
            "Share that came after the limit, over five minutes and an hour (InterTokenBudgetBurnFast).",
            "percentunit",
            shares("itl_late"),
            limits=BUDGET,
        ),
        lines(
            "Answers with 5xx",
            "Share of each instance's answers. vLLM 0.6.4 does not count its answers.",
            "percentunit",
            [Query(f"rackserve:http_errors:ratio5m{{{HERE}}}", NAME)],
            limits=[ERRORS_LIMIT],
        ),
    ),
)
_WORK: Final = Row(
    "What it does",
    (
        lines(
            "Tokens generated",
            "In a second, by instance.",
            "short",
            [Query(f"rackserve:generation_tokens:rate5m{{{HERE}}}", NAME)],
            stacked=True,
        ),
        lines(
            "Prompt tokens",
            "In a second, by instance; those found in the prefix cache are among them.",
            "short",
            [Query(f"rackserve:prompt_tokens:rate5m{{{HERE}}}", NAME)],
            stacked=True,
        ),
        lines(
            "Requests ended, by reason",
            "stop and length are answers; abort is a client that went away, not an error of the server.",
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
            "What each runs, and what it does now.",
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
            "State of each instance",
            "What the probe on its host says, which asks it for a token every few seconds: docs/reference/health.md.",
            Query(state_code(HERE), NAME),
            STATE_NAMES,
            width=10,
        ),
    ),
)

FLEET: Final = Board(
    "fleet",
    "Fleet",
    "What clients of the fleet feel, and which instance is how.",
    ("model", "host"),
    (_FIVE, _GLANCE, _BUDGET, _WORK, _INSTANCES),
)
