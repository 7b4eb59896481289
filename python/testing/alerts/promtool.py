"""From cases.yml to what `promtool test rules` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_TEXT = Path(__file__).with_name("cases.yml").read_text(encoding="utf-8")
# Everything as text: 0x20 is promtool's "twenty more zeros", and YAML's 32.
CASES: list[dict[str, Any]] = yaml.load(_TEXT, Loader=yaml.BaseLoader)  # noqa: S506 - builds text, lists and dicts only
INSTANCE = 'job="vllm", instance="gpu1:8000", host="gpu1", vllm_instance="a", model="m", release="0.32.0"'


def _test(case: dict[str, Any], series: dict[str, str], expected: dict[str, int]) -> dict[str, Any]:
    name = case["alert"]
    firing = f'count by (alertname) (ALERTS{{alertname="{name}", alertstate="firing"}})'
    some = [{"labels": f'{{alertname="{name}"}}', "value": 1}]
    return {
        "name": f"{name}, {case.get('turned', 'as it is')}",
        "interval": case.get("interval", "15s"),
        "input_series": [{"series": key.replace("@", INSTANCE), "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {"expr": firing, "eval_time": time, "exp_samples": some[:count]} for time, count in expected.items()
        ],
    }


def tests_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tests of one alert: it fires, and stays silent."""
    expected = {case["at"]: 1} | ({case["not_at"]: 0} if "not_at" in case else {})
    found = [_test(case, case["fires"], expected)]
    return [*found, _test(case, case["silent"], {case["at"]: 0})] if "silent" in case else found


def rule_test(rules: str, cases: list[dict[str, Any]]) -> str:
    """Return a file of `promtool test rules` for the rules of a folder, and cases of one interval."""
    (interval,) = {case.get("interval", "15s") for case in cases}
    tests = [test for case in cases for test in tests_of(case)]
    return yaml.safe_dump({"rule_files": [f"{rules}/*.yml"], "evaluation_interval": interval, "tests": tests})


GPUS: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("gpus.yml").read_text(encoding="utf-8"))


def gpu_test(rules: str, cases: list[dict[str, Any]], *, wrong: bool = False) -> str:
    """Return a file of `promtool test rules` for the series of GPUs; `wrong` expects each value one off."""
    labels = 'job="gpu", instance="gpu1:9835", host="gpu1"'
    tests = [
        {
            "name": case["name"],
            "interval": "15s",
            "input_series": [
                {"series": key.replace("@", labels), "values": str(values)} for key, values in case["series"].items()
            ],
            "promql_expr_test": [
                {
                    "expr": record,
                    "eval_time": "1m",
                    "exp_samples": [
                        {"labels": f'{record}{{host="gpu1", gpu="{gpu}"}}', "value": value + wrong}
                        for gpu, value in found.items()
                    ],
                }
                for record, found in case["expected"].items()
            ],
        }
        for case in cases
    ]
    return yaml.safe_dump({"rule_files": [f"{rules}/gpus.yml"], "evaluation_interval": "15s", "tests": tests})


def turned(case: dict[str, Any]) -> dict[str, Any]:
    """Return a case with its series changed over, which has to fail."""
    return {**case, "turned": "turned", "fires": case["silent"], "silent": case["fires"]}
