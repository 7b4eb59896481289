"""From the targets and jobs of an inventory to what Prometheus scrapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rackserve.errors import InputError
from rackserve.monitoring import ScrapePlan, scrape_plan, unsettled_targets

NODE = {"host": "gpu1", "address": "10.0.0.11", "port": 9100}
VLLM = {**NODE, "port": "8000", "instance": "a", "model": "m", "release": "0.32.0", "served_names": ["m", "n"]}
FLEET: dict[str, list[dict[str, Any]]] = {
    "prometheus": [{"address": "127.0.0.1", "port": 9090}],
    "alertmanager": [{"address": "127.0.0.1", "port": 9093}],
    "vllm": [VLLM],
    "node": [NODE],
    "nginx": [],
    "edge": [],
    "gpu": [],
}
JOB: dict[str, Any] = {"job_name": "pdu", "static_configs": [{"targets": ["10.0.0.40:9116"], "labels": {"rack": "7"}}]}


def plan(*jobs: object, inventory: Path = Path("/i"), fleet: dict[str, list[dict[str, Any]]] = FLEET) -> ScrapePlan:
    return scrape_plan(fleet, jobs, target_dir="/t", secret_dir="/s", inventory=inventory)  # noqa: S106 - a directory


def test_each_job_reads_its_own_file_of_targets() -> None:
    made = plan(JOB)
    assert [config.pop("file_sd_configs") for config in made.configs] == [
        [{"files": [f"/t/{name}.yml"]}] for name in made.targets
    ]
    assert [*made.targets] == ["prometheus", "alertmanager", "vllm", "node", "nginx", "edge", "gpu", "pdu"]
    assert [config for config in made.configs if len(config) > 1] == [{"job_name": "vllm", "scrape_interval": "5s"}]


def test_a_new_target_changes_the_file_of_its_job_only() -> None:
    more = {**FLEET, "node": [NODE, {**NODE, "host": "gpu2", "address": "10.0.0.12"}]}
    before, after = plan(), plan(fleet=more)
    assert after.configs == before.configs
    assert {name for name in after.targets if after.targets[name] != before.targets[name]} == {"node"}


def test_targets_have_the_labels_that_rules_and_dashboards_select() -> None:
    assert plan().targets == {
        "prometheus": [{"targets": ["127.0.0.1:9090"], "labels": {}}],
        "alertmanager": [{"targets": ["127.0.0.1:9093"], "labels": {}}],
        "vllm": [
            {
                "targets": ["10.0.0.11:8000"],
                "labels": {"host": "gpu1", "vllm_instance": "a", "model": "m", "release": "0.32.0"},
            }
        ],
        "node": [{"targets": ["10.0.0.11:9100"], "labels": {"host": "gpu1"}}],
        "nginx": [],
        "edge": [],
        "gpu": [],
    }


@pytest.mark.parametrize(
    ("job", "target", "reason"),
    [
        ("vllm", NODE, "prometheus_vllm_targets: target 1: 'instance' is missing; set it; 'model' is missing"),
        ("node", {**NODE, "port": 91000}, "prometheus_node_targets: target 1: '10.0.0.11:91000' is not host:port; set"),
        ("node", {**NODE, "address": "fd00::1"}, "'fd00::1:9100' is not host:port"),
        ("gpu", {**NODE, "address": "http://gpu1"}, "prometheus_gpu_targets: target 1: 'http://gpu1:9100' is not"),
    ],
)
def test_a_wrong_target_of_the_fleet_is_refused(job: str, target: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as refused:
        plan(fleet={**FLEET, job: [target]})
    assert reason in str(refused.value)


def test_an_ipv6_address_in_brackets_is_a_target() -> None:
    made = plan(fleet={**FLEET, "node": [{**NODE, "address": "[fd00::1]"}]})
    assert made.targets["node"][0]["targets"] == ["[fd00::1]:9100"]


def test_secrets_of_a_job_are_files_and_nothing_else(tmp_path: Path) -> None:
    for name in ("password", "ca.crt", "token", "own.crt", "own.key"):
        (tmp_path / name).write_text("hunter2", encoding="utf-8")
    made = plan(
        {
            **JOB,
            "scheme": "https",
            "username": "site",
            "password_src": "password",
            "ca_src": str(tmp_path / "ca.crt"),
            "cert_src": "own.crt",
            "key_src": "own.key",
            "tls_config": {"server_name": "pdu.example"},
        },
        {**JOB, "job_name": "bmc", "token_src": "token"},
        inventory=tmp_path,
    )
    assert made.configs[-2:] == [
        {
            "job_name": "pdu",
            "scheme": "https",
            "basic_auth": {"username": "site", "password_file": "/s/pdu.password"},
            "tls_config": {
                "server_name": "pdu.example",
                "ca_file": "/s/pdu.ca",
                "cert_file": "/s/pdu.cert",
                "key_file": "/s/pdu.key",
            },
            "file_sd_configs": [{"files": ["/t/pdu.yml"]}],
        },
        {
            "job_name": "bmc",
            "authorization": {"credentials_file": "/s/bmc.token"},
            "file_sd_configs": [{"files": ["/t/bmc.yml"]}],
        },
    ]
    assert made.secrets == {
        "/s/pdu.password": str(tmp_path / "password"),
        "/s/pdu.ca": str(tmp_path / "ca.crt"),
        "/s/pdu.cert": str(tmp_path / "own.crt"),
        "/s/pdu.key": str(tmp_path / "own.key"),
        "/s/bmc.token": str(tmp_path / "token"),
    }
    assert "hunter2" not in str(made)


def test_a_secret_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        plan({**JOB, "token_src": "gone.token"}, inventory=tmp_path)
    assert f"job pdu: token_src: {tmp_path}/gone.token is not a file on the controller; correct" in str(refused.value)


def target(job: str, address: str, health: str = "up", interval: str = "15s") -> dict[str, Any]:
    return {
        "discoveredLabels": {"job": job, "__address__": address},
        "scrapePool": job,
        "scrapeUrl": f"http://{address}/metrics",
        "scrapeInterval": interval,
        "health": health,
    }


@pytest.mark.parametrize(
    ("active", "dropped", "differs"),
    [
        ([target("node", "a:1"), target("node", "b:1", "down")], [], []),
        ([target("node", "a:1")], [target("node", "b:1")], []),
        ([target("node", "a:1")], [], ["node b:1 is not read yet"]),
        ([target("node", x) for x in ("a:1", "b:1", "c:1")], [], ["node c:1 is not in the inventory"]),
        (
            [target("node", "a:1", "unknown"), target("node", "b:1")],
            [],
            ["node http://a:1/metrics is not scraped yet"],
        ),
        ([target("node", "a:1", "unknown", "1m0s"), target("node", "b:1")], [], []),
    ],
    ids=["settled", "dropped by relabelling", "missing", "removed", "unscraped", "unscraped for a minute"],
)
def test_targets_that_prometheus_has_not_loaded_are_reported(
    active: list[Any], dropped: list[Any], differs: list[str]
) -> None:
    answer = {"data": {"activeTargets": active, "droppedTargets": dropped}}
    assert unsettled_targets(answer, {"node": [{"targets": ["a:1"]}, {"targets": ["b:1"]}]}) == differs
