"""The role `verify` on this machine, which serves nothing: it looks where the inputs of the other roles say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
INSTANCE = {
    "name": "chat",
    "model": {"repo": "o/m", "revision": "0" * 40},
    "max_model_len": 8,
    "max_num_seqs": 1,
    "port": 7990,
}
CHANGED: dict[str, Any] = {
    "vllm_instances": [INSTANCE],
    "vllm_listen_address": "127.0.0.2",
    "vllm_cpu_kvcache_gib": 3,
    "stack_vllm_root": "/data/vllm",
    "stack_https_port": 8443,
    "stack_node_exporter_port": 9109,
    "stack_prometheus_port": 7991,
    "stack_server_name": "llm.changed",
    "stack_pki_dir": "/changed/pki",
    "stack_verify_no_default_route": False,
    "nginx_limit_rate": 5,
    "nginx_limit_burst": 7,
    "prometheus_listen_address": "127.0.0.3",
}
GIVEN = {
    "ansible_connection": "local",
    "ansible_python_interpreter": sys.executable,
    "ansible_become": False,
    "ansible_host": "127.0.0.1",
    "stack_runtime": {"vllm": "0.32.0", "flavour": "cpu", "python": "3.11"},
    "stack_bundle_path": "/bundle",
    "stack_trust_file": "/trust.yml",
}


def results(folder: Path, tag: str, playbook_name: str = "verify_fleet.yml", **variables: Any) -> list[dict[str, Any]]:
    """Run a playbook with one tag on a site of this machine alone, and return each task's result."""
    groups = {name: {"hosts": {"here": None}} for name in ("vllm_hosts", "edge_hosts", "monitoring_hosts")}
    inventory = {"all": {"children": groups, "vars": {**GIVEN, **variables}}}
    (folder / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(folder / "hosts.yml")]
    playbook = [str(ROOT / "playbooks" / playbook_name), "--tags", tag]
    playbook += ["--check"] if playbook_name != "verify_fleet.yml" else []
    done = subprocess.run(
        [*command, *playbook], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    play = json.loads(done.stdout)["plays"][-1]  # one that changes hosts locks them in the play before
    return [task["hosts"]["here"] for task in play["tasks"]]


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results(tmp_path_factory.mktemp("site"), "verify", **CHANGED)[-1]


def test_what_is_not_there_fails(verified: dict[str, Any]) -> None:
    assert verified["failed"]


@pytest.mark.parametrize(
    ("check", "seen"),
    [
        ("runtime", "/data/vllm/current"),
        ("models chat", "http://127.0.0.2:7990"),
        ("prometheus targets", "http://127.0.0.3:7991"),
    ],
)
def test_a_check_looks_where_the_inputs_say(verified: dict[str, Any], check: str, seen: str) -> None:
    (detail,) = (found["detail"] for found in verified["checks"] if found["name"] == check)
    assert seen in detail


def test_the_facts_of_the_controller_are_in_the_result(verified: dict[str, Any]) -> None:
    edge = verified["facts"]["edge"]
    assert (edge["port"], edge["server_name"], edge["ca_file"]) == (8443, "llm.changed", "/changed/pki/ca.crt")
    assert (edge["rate"], edge["burst"], edge["expect"]) == (5, 7, "Paris")
    assert verified["facts"]["serves"]["cpu_kvcache_gib"] == 3


def test_the_facts_are_not_sent_to_the_host(verified: dict[str, Any]) -> None:
    assert set(verified["invocation"]["module_args"]) == {"checks", "strict"}


def test_bad_instances_are_refused_on_the_controller(tmp_path: Path) -> None:
    found = results(tmp_path, "verify", **{**CHANGED, "vllm_instances": [{**INSTANCE, "speed": 9}]})[-1]
    assert found["failed"]
    assert "speed" in found["msg"]


def test_status_looks_where_the_inputs_say_and_does_not_fail(tmp_path: Path) -> None:
    found = results(tmp_path, "status", **CHANGED)[-1]
    assert not found.get("failed")
    row, rotation = found["invocation"]["module_args"]["checks"]
    assert (row["url"], row["current"]) == ("http://127.0.0.2:7990", "/data/vllm/current")
    assert rotation["state"] == "/var/lib/rackserve/edge/rotation.json"


def test_the_evidence_of_faults_is_collected_where_the_inputs_say(tmp_path: Path) -> None:
    found = results(tmp_path, "diagnose", **CHANGED)[-1]
    assert [unit["instance"] for unit in found["evidence"]["units"]] == ["chat"]
    asked = found["invocation"]["module_args"]
    assert asked["prometheus"] == "http://127.0.0.3:7991"
    assert asked["rotation"] == "/var/lib/rackserve/edge/rotation.json"
    assert "/data/vllm" in asked["mounts"]
    assert sorted(asked["services"]) == [
        "nginx.service",
        "prometheus-alertmanager.service",
        "prometheus-nginx-exporter.service",
        "prometheus-node-exporter.service",
        "prometheus.service",
        "rackserve-host-metrics.timer",
    ]


def test_a_host_without_a_record_cannot_be_compared_and_does_not_fail(tmp_path: Path) -> None:
    found = results(tmp_path, "drift", **CHANGED)[-1]
    assert not found.get("failed")
    assert found["changed"] is False
    assert "/var/lib/rackserve/record.json is missing" in found["drift"]["problem"]
    assert found["drift"]["differences"] == []


def test_what_is_recorded_of_a_host_comes_from_the_roles_and_the_inputs(tmp_path: Path) -> None:
    found = results(tmp_path, "drift_record", "record_fleet.yml", **CHANGED, nginx_http_port=8081, grafana_port=3009)[
        -1
    ]
    assert not found.get("failed"), found
    asked = found["invocation"]["module_args"]
    assert (asked["mode"], asked["before"], asked["only"]) == ("write", {}, [])
    owned = asked["owned"]
    assert owned["vllm"]["ports"] == [7990]
    assert sorted(owned["nginx"]["ports"]) == [8080, 8081, 8443]
    assert owned["grafana"]["ports"] == [3009]
    assert owned["vllm_runtime"]["trees"] == ["/data/vllm/releases"]
    assert "/usr/local/lib/rackserve/host_state.pyz" in owned["drift"]["files"]
    assert "{{" not in json.dumps(owned)
