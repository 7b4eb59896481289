"""The scrape jobs of a site: what is taken, and what is refused with one reason."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.errors import InputError
from rackserve.monitoring._scrape_jobs import parse_jobs
from rackserve.monitoring._values import is_address, seconds_of

JOB: dict[str, Any] = {"job_name": "pdu", "static_configs": [{"targets": ["10.0.0.40:9116"]}]}


def group(**keys: object) -> dict[str, Any]:
    return {**JOB, "static_configs": [{"targets": ["a:1"], **keys}]}


def test_prometheuss_own_keys_are_handed_on_and_defaults_left_out() -> None:
    (job,) = parse_jobs(
        [
            {
                **JOB,
                "scrape_interval": "1m",
                "scrape_timeout": "30s",
                "metrics_path": "/snmp",
                "params": {"module": ["apc"]},
                "honor_labels": True,
                "sample_limit": 5000,
                "metric_relabel_configs": [{"action": "drop", "source_labels": ["x"], "regex": "y"}],
            }
        ],
        reserved=(),
    )
    assert job.config({}) == {
        "job_name": "pdu",
        "scrape_interval": "1m",
        "scrape_timeout": "30s",
        "metrics_path": "/snmp",
        "params": {"module": ["apc"]},
        "honor_labels": True,
        "sample_limit": 5000,
        "metric_relabel_configs": [{"action": "drop", "source_labels": ["x"], "regex": "y"}],
    }
    (plain,) = parse_jobs([JOB], reserved=())
    assert plain.config({}) == {"job_name": "pdu"}
    assert plain.groups() == [{"targets": ["10.0.0.40:9116"], "labels": {}}]


def test_relabelling_makes_an_address_of_anything() -> None:
    relabel = [{"source_labels": ["__address__"], "target_label": "__param_target"}]
    (job,) = parse_jobs([{**group(targets=["https://a/health"]), "relabel_configs": relabel}], reserved=())
    assert job.config({})["relabel_configs"] == relabel


@pytest.mark.parametrize(
    ("jobs", "reason"),
    [
        ([{**JOB, "job_name": "node"}], "job node: rackserve has a job of this name; choose another job_name"),
        ([JOB, JOB], "job pdu: two jobs have this name; give each its own job_name"),
        ([{**JOB, "job_name": "../x"}], "job ../x: job_name: String should match pattern"),
        ([{"static_configs": []}], "job number 1: 'job_name' is missing; set it"),
        (["pdu"], "job number 1: Input should be a valid dictionary"),
        ([group(targets=["10.0.0.40"])], "job pdu: target '10.0.0.40' is not host:port; write it like"),
        ([group(targets=["http://10.0.0.40:9116"])], "target 'http://10.0.0.40:9116' is not host:port"),
        ([group(targets=["a:0"])], "target 'a:0' is not host:port"),
        ([group(targets=[])], "job pdu: static_configs.1.targets: List should have at least 1 item"),
        ([group(labels={"job": "node"})], "static_configs.1: the label job is always the job_name; remove it"),
        ([group(labels={"rack": 7})], "static_configs.1.labels.rack: Input should be a valid string (found 7)"),
        ([group(labels={"a-b": "c"})], "String should match pattern"),
        ([{**JOB, "scrape_interval": "30"}], "scrape_interval: '30' is not a duration; write it like 30s or 1m30s"),
        ([{**JOB, "scrape_interval": "0s"}], "scrape_interval: '0s' is not a duration"),
        ([{**JOB, "scrape_interval": 30}], "scrape_interval: Input should be a valid string (found 30)"),
        (
            [{**JOB, "scrape_timeout": "20s"}],
            "job pdu: scrape_timeout 20s is longer than scrape_interval 15s; set a shorter timeout or a longer",
        ),
        ([{**JOB, "metrics_path": "metrics"}], "metrics_path: String should match pattern"),
        ([{**JOB, "scheme": "ftp"}], "scheme: Input should be 'http' or 'https' (found 'ftp')"),
        ([{**JOB, "username": "site"}], "job pdu: username and password_src belong together; set both or neither"),
        ([{**JOB, "key_src": "/k"}], "cert_src and key_src belong together"),
        (
            [{**JOB, "username": "u", "password_src": "/p", "token_src": "/t"}],
            "username and token_src are both set; set one",
        ),
        (
            [{**JOB, "basic_auth": {"password": "hunter2"}}],
            "job pdu: unknown key 'basic_auth'; known keys are username, password_src",
        ),
        ([group(targets=["u:hunter2@a:1"])], "it contains a blank or an @; a user and a password go into username"),
        ([{**JOB, "bearer_token": "hunter2"}], "job pdu: unknown key 'bearer_token'"),
    ],
)
def test_a_wrong_job_is_refused_and_no_secret_shown(jobs: list[object], reason: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_jobs(jobs, reserved={"node"})
    assert str(refused.value).startswith("prometheus_scrape_jobs: job ")
    assert reason in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600)])
def test_a_duration_is_read_as_prometheus_does(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5", "30s1m", "1.5m", " 5s", "0m0s"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("target", "is_one"), [("gpu1:9100", True), ("[fd00::1]:80", True), ("gpu1:65536", False), ("a b:1", False)]
)
def test_an_address_has_a_host_and_a_port(target: str, *, is_one: bool) -> None:
    assert is_address(target) is is_one
